"""Evaluation of sub-networks: figures against plain computations, batch norms, and a cache that is never wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.training.evaluating import (
    Evaluator,
    calibration_batches,
    evaluate,
    has_batch_norm,
    recalibrate,
    weights_digest,
)

SIZE, CLASSES = 8, 3
DOCUMENT: dict[str, Any] = {
    "name": "small",
    "input": SIZE,
    "channels": 1,
    "classes": CLASSES,
    "stages": [
        {
            "embed": "patch(size=4)",
            "dim": [8, 16],
            "blocks": [
                {
                    "repeat": [1, 2],
                    "mixer": ["softmax(heads=[1, 2], head_dim=4)", "rep_depthwise"],
                    "feedforward": "mlp(ratio=[1, 2])",
                }
            ],
        }
    ],
    "head": "mean",
}
SPACE = Space.parse(DOCUMENT, shared_rules(), "small")


class Images:
    """Data in memory, sorted by class, that counts what is read of it."""

    name, classes, channels, size = "images", CLASSES, 1, SIZE

    def __init__(self, train: int = 40, search: int = 21, fingerprint: str = "ab"):
        generator = torch.Generator().manual_seed(0)
        self.fingerprint = fingerprint
        self.splits = {}
        for split, length in (("train", train), ("search", search)):
            images = 2 + 3 * torch.randn(length, 1, SIZE, SIZE, generator=generator)
            self.splits[split] = (images, (torch.arange(length) * CLASSES // max(1, length)))
        self.reads: list[tuple[str, list[int]]] = []

    def length(self, split: str) -> int:
        return len(self.splits[split][0])

    def read(self, split: str, indices: Sequence[int], augment: Any = None, seeds: Any = None) -> tuple[Tensor, Tensor]:
        assert augment is None and seeds is None
        self.reads.append((split, list(indices)))
        images, labels = self.splits[split]
        return images[list(indices)], labels[list(indices)]

    def count(self, split: str) -> int:
        return sum(len(indices) for known, indices in self.reads if known == split)


class Told(nn.Module):
    """Answers with logits made beforehand, found by the image."""

    def __init__(self, images: Tensor, logits: Tensor):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.images, self.logits = images, logits

    def forward(self, image: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not self.training
        same = (image[:, None] == self.images[None]).flatten(2).all(dim=2)
        return self.logits[same.int().argmax(dim=1)] * self.weight


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    made = Supernet(SPACE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def with_norms(batch: bool) -> Architecture:
    """A network of the space with batch norms, or without any."""
    chance = Random(1)
    while True:
        architecture = SPACE.sample(chance)
        if any(block.mixer.name == "rep_depthwise" for block in architecture.blocks) == batch:
            return architecture


# Figures -------------------------------------------------------------------------------------------------------------


def test_accuracy_and_loss_are_the_plain_ones() -> None:
    data = Images()
    images, labels = data.splits["search"]
    logits = torch.randn(len(labels), CLASSES, generator=torch.Generator().manual_seed(1))
    network = Told(images, logits).train()
    found = evaluate(network, data, "search", batch=8)  # 21 images: the last batch is smaller
    assert found.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert (found.images, found.calibrated_on, found.cached) == (21, 0, False)
    assert network.training and data.count("search") == 21 and data.count("train") == 0


def test_logits_that_are_not_finite_are_wrong() -> None:
    data = Images()
    images, labels = data.splits["search"]
    logits = F.one_hot(labels, CLASSES).float()
    logits[0], logits[1, 2] = math.nan, math.inf
    found = evaluate(Told(images, logits), data, "search")
    assert found.accuracy == 19 / 21 and found.loss == math.inf


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(InputError, match="has images"):
        evaluate(Told(torch.zeros(1), torch.zeros(1)), Images(search=0), "search")


@pytest.mark.parametrize("batch", [False, True])
def test_bound_and_extracted_agree_to_the_bit(supernet: Supernet, batch: bool) -> None:
    data, architecture = Images(), with_norms(batch)
    own = supernet.extract(architecture)
    used = recalibrate(own, data, 16)
    alone, found = evaluate(own, data, "search"), Evaluator(supernet, data, calibration=16).of(architecture)
    assert (found.accuracy, found.loss) == (alone.accuracy, alone.loss)
    assert found.calibrated_on == used == (16 if batch else 0)


# Batch norms ---------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    first, second = nn.BatchNorm2d(1, momentum=0.3), nn.BatchNorm1d(4)
    network = nn.Sequential(first, nn.Flatten(), nn.Linear(SIZE * SIZE, 4), second, nn.Dropout(0.5)).train()
    before = [parameter.clone() for parameter in network.parameters()]
    with torch.no_grad():
        network(9 * torch.randn(5, 1, SIZE, SIZE))  # statistics of something else, which do not count
    data = Images()
    assert recalibrate(network, data, 20, batch=20) == 20
    shown = data.splits["train"][0][::2]  # 20 of 40, evenly
    torch.testing.assert_close(first.running_mean, shown.mean().reshape(1))
    torch.testing.assert_close(first.running_var, shown.var().reshape(1))
    with torch.no_grad():
        normed = F.batch_norm(shown, None, None, first.weight, first.bias, True)
        features = network[2](normed.flatten(1))
    torch.testing.assert_close(second.running_mean, features.mean(dim=0))
    torch.testing.assert_close(second.running_var, features.var(dim=0))
    assert first.momentum == 0.3 and second.momentum == 0.1
    assert all(module.training for module in network.modules())
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_statistics_are_the_average_over_batches() -> None:
    network, data = nn.Sequential(nn.BatchNorm2d(1)).eval(), Images()
    recalibrate(network, data, 40, batch=15)  # 13, 13 and 14 images
    norm, parts = network[0], data.splits["train"][0].split([13, 13, 14])
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    torch.testing.assert_close(norm.running_var, torch.stack([part.var() for part in parts]).mean().reshape(1))
    assert not network.training and int(norm.num_batches_tracked or 0) == 3


def test_calibration_images_are_spread_over_the_classes() -> None:
    data = Images(train=30)
    labels = torch.cat([labels for _, labels in calibration_batches(data, 6, batch=4)])
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [len(indices) for _, indices in data.reads] == [3, 3]
    assert sum(len(labels) for _, labels in calibration_batches(data, 10_000)) == 30


def test_a_network_without_batch_norm_reads_no_training_image() -> None:
    network, data = nn.Sequential(nn.LayerNorm(SIZE)), Images(train=0)
    assert recalibrate(network, data, 8) == 0 and not has_batch_norm(network) and not data.reads


@pytest.mark.parametrize("train, images", [(40, 1), (1, 8), (0, 8)])
def test_too_few_images_are_refused(train: int, images: int) -> None:
    with pytest.raises(InputError, match="at least two"):
        recalibrate(nn.BatchNorm2d(1), Images(train=train), images)


def test_the_bank_keeps_its_statistics(supernet: Supernet) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    Evaluator(supernet, Images()).of(with_norms(True))
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())


# The hash of the weights ---------------------------------------------------------------------------------------------


def test_the_hash_sees_every_byte_name_shape_and_type() -> None:
    def digest(**tensors: Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_digest(module)

    a, b = torch.arange(6.0), torch.zeros(2, dtype=torch.bfloat16)
    base = digest(a=a, b=b)
    assert base == digest(b=b.clone(), a=a.clone())  # whatever the order and the memory
    assert base == digest(a=torch.arange(12.0)[:6], b=b)
    changed = a.clone()
    changed[5] = math.nextafter(5.0, 6.0) + 1e-6
    others = [digest(a=changed, b=b), digest(a=a.reshape(2, 3), b=b), digest(c=a, b=b), digest(a=a, b=b.half())]
    others += [digest(a=a), digest(a=a, b=-b), digest(a=a.view(torch.int32), b=b)]
    assert len({base, *others}) == 8
    assert digest(a=torch.tensor(3)) != digest(a=torch.tensor(4))  # a counter without dimensions


def test_the_hash_of_a_bank_sees_statistics(supernet: Supernet) -> None:
    before = weights_digest(supernet)
    statistic = next(value for name, value in supernet.named_buffers() if "running_mean" in name)
    statistic.add_(1)
    assert weights_digest(supernet) != before


# The cache -----------------------------------------------------------------------------------------------------------


def test_each_network_is_measured_once(supernet: Supernet, tmp_path: Path) -> None:
    data = Images()
    plain, normed = with_norms(False), with_norms(True)
    evaluator = Evaluator(supernet, data, cache=tmp_path / "cache", calibration=16)
    first = [evaluator.of(plain), evaluator.of(normed)]
    reads = len(data.reads)
    again = [evaluator.of(plain), evaluator.of(normed)]
    later = [Evaluator(supernet, data, cache=tmp_path / "cache", calibration=16).of(normed)]
    assert len(data.reads) == reads
    for old, new in zip([*first, first[1]], [*again, *later], strict=True):
        assert not old.cached and new.cached
        assert {**vars(old), "cached": True} == vars(new)


def test_whatever_a_result_depends_on_is_measured_again(supernet: Supernet, tmp_path: Path) -> None:
    data, architecture = Images(), with_norms(True)

    def cached(images: Images = data, **options: Any) -> bool:
        return Evaluator(supernet, images, cache=tmp_path, **options).of(architecture).cached

    assert not cached() and cached()
    assert not cached(split="train") and not cached(calibration=8) and not cached(Images(fingerprint="cd"))
    with torch.no_grad():
        next(supernet.parameters()).view(-1)[-1] += 1
    assert not cached() and cached() and cached(split="search")


def test_an_optimizer_step_is_noticed(supernet: Supernet, tmp_path: Path) -> None:
    architecture = with_norms(False)
    evaluator = Evaluator(supernet, Images(), cache=tmp_path)
    before = evaluator.of(architecture)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=1.0)
    supernet.bind(architecture, train=True)(torch.randn(2, 1, SIZE, SIZE)).square().sum().backward()
    optimizer.step()
    after = evaluator.of(architecture)
    assert not after.cached and after.loss != before.loss
    own = supernet.extract(architecture)
    assert after.loss == evaluate(own, evaluator.data, "search").loss


def test_refresh_finds_what_torch_does_not_count(supernet: Supernet, tmp_path: Path) -> None:
    architecture = with_norms(False)
    evaluator = Evaluator(supernet, Images(), cache=tmp_path)
    evaluator.of(architecture)
    for parameter in supernet.parameters():
        parameter.data.mul_(0.5)
    evaluator.refresh()
    found = evaluator.of(architecture)
    assert not found.cached and found.loss == evaluate(supernet.extract(architecture), evaluator.data, "search").loss


@pytest.mark.parametrize("fault", ["truncated", "altered", "of another", "empty", "misshapen"])
def test_a_file_that_is_not_sound_is_measured_again(supernet: Supernet, tmp_path: Path, fault: str) -> None:
    from nas.core.runs import read_json, write_json

    architecture, evaluator = with_norms(False), Evaluator(supernet, Images(), cache=tmp_path)
    first = evaluator.of(architecture)
    (path,) = tmp_path.rglob("*.json")
    text = path.read_text()
    content = read_json(path)
    match fault:
        case "truncated":
            path.write_text(text[: len(text) // 2])
        case "altered":
            path.write_text(text.replace(json.dumps(first.accuracy), "0.999"))
            assert path.read_text() != text
        case "of another":
            write_json(path, {**content, "of": {**content["of"], "weights": "00"}})
        case "empty":
            path.write_bytes(b"")
        case "misshapen":
            write_json(path, {**content, "result": {"loss": 1.0, "more": 2}})
    second = evaluator.of(architecture)
    assert not second.cached and (second.accuracy, second.loss) == (first.accuracy, first.loss)
    assert evaluator.of(architecture).cached


def test_an_infinite_loss_is_kept(supernet: Supernet, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(math.nan)
    architecture, evaluator = with_norms(False), Evaluator(supernet, Images(), cache=tmp_path)
    first, second = evaluator.of(architecture), evaluator.of(architecture)
    assert second.cached and first.loss == second.loss == math.inf and second.accuracy == 0


def test_two_that_measure_the_same_at_once_agree(supernet: Supernet, tmp_path: Path) -> None:
    """Another writes the file while this one measures: both results are the same, and the file is sound."""
    architecture, data = with_norms(False), Images()
    other = Evaluator(supernet, Images(), cache=tmp_path)

    class Meanwhile(Images):
        def read(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
            other.of(architecture)
            return data.read(*arguments, **options)

    found = Evaluator(supernet, Meanwhile(), cache=tmp_path).of(architecture)
    kept = other.of(architecture)
    assert not found.cached and kept.cached and kept.loss == found.loss
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1  # nothing is left beside it


@pytest.mark.parametrize("change", [{"size": 16}, {"channels": 3}, {"classes": 10}])
def test_data_of_another_kind_is_refused(supernet: Supernet, change: dict[str, int]) -> None:
    data = Images()
    vars(data).update(change)
    with pytest.raises(InputError, match="those of the data"):
        Evaluator(supernet, data).of(with_norms(False))


def test_a_cache_that_cannot_be_made_is_told(supernet: Supernet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        Evaluator(supernet, Images(), cache=tmp_path / "file").of(with_norms(False))
