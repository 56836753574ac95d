"""Distillation: losses against closed forms and timm's own tasks; gradients reach the student, never the teacher."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.core.runs import new_run
from nas.core.space import Space
from nas.model.extremes import extremes
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.training.checkpoints import Checkpoints
from nas.training.config import Distillation, TrainConfig
from nas.training.data import open_data
from nas.training.distill import Model, Prepared, Projection, Teacher, divergence, soft_cross_entropy
from nas.training.start import CHECKPOINTS, write_space
from nas.training.state import of_module

RANDOM_TIMM = "timm:test_vit@random"
BLOCK = {"repeat": [1, 2], "mixer": "softmax(heads=2, head_dim=8)", "feedforward": "mlp(ratio=[1, 2])"}


def document(head: Any = "distilled", **block: Any) -> dict[str, Any]:
    stage = {
        "embed": "patch(size=8)",
        "dim": [16, 24],
        "class_token": True,
        "distill_token": True,
        "blocks": [BLOCK | block],
    }
    return {"input": 32, "channels": 1, "classes": 10, "stages": [stage], "head": head}


def supernet(head: Any = "distilled", **block: Any) -> Supernet:
    torch.manual_seed(0)
    return Supernet(Space.parse(document(head, **block), shared_rules(), "small"))


def teacher(kind: str, net: Supernet, name: str = RANDOM_TIMM, temperature: float = 2.0) -> Teacher:
    told = Distillation(teacher=name, kind=kind, weight=0.5, temperature=temperature)
    return Teacher.of(told, open_data("digits"), net)


class Replay(nn.Module):
    """A student or teacher of timm's tasks that says what it is told, whatever the images."""

    def __init__(self, output: Any, features: Tensor | None = None):
        super().__init__()
        self.output, self.features = output, features
        self.num_features = 1 if features is None else features.shape[1]
        self.pretrained_cfg = {"mean": (0.0,), "std": (1.0,)}
        self.num_classes, self.in_chans = 10, 1

    def forward(self, images: Tensor) -> Any:
        return self.output

    def forward_features(self, images: Tensor) -> Tensor:
        assert self.features is not None
        return self.features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Any:
        return features if pre_logits else self.output

    def set_distilled_training(self, enable: bool) -> None:
        assert enable


def student(net: Supernet, images: Tensor, train: bool = True) -> tuple[Any, Any, Tensor]:
    """A network bound from the bank, its state after the last block, and its logits."""
    network = net.bind(net.space.sample(Random(1)), train)
    tokens = network.forward_tokens(images)
    return network, tokens, network.head(tokens)


def test_soft_cross_entropy_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    logits, wanted, temperature = rng.normal(size=(4, 6)), 3 * rng.normal(size=(4, 6)), 2.5
    own, told = np.exp(logits / temperature), np.exp(wanted / temperature)
    own, told = own / own.sum(1, keepdims=True), told / told.sum(1, keepdims=True)
    expected = -(temperature**2) * (told * np.log(own)).sum(1).mean()
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    loss = soft_cross_entropy(x, torch.tensor(wanted, dtype=torch.float32), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert np.allclose(x.grad.numpy(), temperature * (own - told) / 4, atol=1e-5)  # type: ignore[union-attr]


def test_divergence_is_zero_where_both_agree_and_differs_from_cross_entropy_by_the_teachers_entropy() -> None:
    logits, wanted = torch.randn(5, 7), torch.randn(5, 7, requires_grad=True)
    assert divergence(logits, logits, 3.0).item() == pytest.approx(0, abs=1e-5)
    told = (wanted / 3).softmax(1)
    entropy = -9 * (told * told.log()).sum(1).mean()
    expected = (soft_cross_entropy(logits, wanted, 3.0) - entropy).item()
    assert divergence(logits, wanted, 3.0).item() == pytest.approx(expected, rel=1e-4)
    assert not divergence(logits, wanted).requires_grad and not soft_cross_entropy(logits, wanted).requires_grad


def test_logit_loss_is_that_of_timms_task() -> None:
    from timm.task import LogitDistillationTask

    net = supernet()
    made, images = teacher("logit", net), torch.randn(3, 1, 32, 32)
    network, tokens, logits = student(net, images)
    told = made.prepare(images)
    task = LogitDistillationTask(Replay(logits), Replay(told.told), nn.CrossEntropyLoss(), temperature=2.0)
    expected = task(images, torch.zeros(3, dtype=torch.int64))["kd_loss"]
    assert torch.equal(made.loss(network, tokens, logits, told), expected)


@pytest.mark.parametrize(("kind", "theirs"), [("token", "soft"), ("token_hard", "hard")])
def test_token_loss_is_that_of_timms_task(kind: str, theirs: str) -> None:
    from timm.task import TokenDistillationTask

    net = supernet()
    made, images = made_token(kind, net), torch.randn(3, 1, 32, 32)
    network, tokens, logits = student(net, images)
    told, both = made.prepare(images), network.head.both(tokens)
    task = TokenDistillationTask(
        Replay(both), Replay(told.told), nn.CrossEntropyLoss(), distill_type=theirs, temperature=2.0
    )
    found = task(images, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(made.loss(network, tokens, logits, told), found["distill_loss"])
    assert torch.equal(made.logits(network, tokens), found["output"])


def made_token(kind: str, net: Supernet) -> Teacher:
    soft = teacher("token", net)
    return soft if kind == "token" else Teacher(soft._model[0], kind, 0.5)


def test_feature_loss_is_that_of_timms_task() -> None:
    from timm.task import FeatureDistillationTask

    net = supernet("class_token")
    made, images = teacher("feature", net), torch.randn(3, 1, 32, 32)
    network, tokens, logits = student(net, images)
    told, features = made.prepare(images), network.head(tokens, pre_logits=True)
    assert features.shape[1] == 16 and made.projection is not None
    task = FeatureDistillationTask(Replay(logits, features), Replay(logits, told.told), nn.CrossEntropyLoss())
    with torch.no_grad():
        task.trainable_module.projection.weight.copy_(made.projection.weight[:, :16])
        task.trainable_module.projection.bias.copy_(made.projection.bias)
    expected = task(images, torch.zeros(3, dtype=torch.int64))["kd_loss"]
    assert made.loss(network, tokens, logits, told).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["logit", "token", "feature"])
def test_gradients_reach_the_student_and_the_projection_and_never_the_teacher(kind: str) -> None:
    net = supernet()
    made, images = teacher(kind, net), torch.randn(3, 1, 32, 32)
    network, tokens, logits = student(net, images)
    made.train()
    told = made.prepare(images)
    made.loss(network, tokens, logits, told).backward()
    (model,) = made._model
    assert not model.network.training and not told.told.requires_grad
    assert all(parameter.grad is None for parameter in model.network.parameters())
    reached = {
        name for name, parameter in net.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert any("embed" in name for name in reached) and any("feedforward" in name for name in reached)
    own = dict(made.named_parameters())
    assert (
        set(own) == set(made.state_dict()) == ({"projection.weight", "projection.bias"} if kind == "feature" else set())
    )
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in own.values())


def test_a_projection_serves_students_of_several_widths() -> None:
    projection, x = Projection(24, 5), torch.randn(2, 16)
    expected = x @ projection.weight[:, :16].T + projection.bias
    assert torch.allclose(projection(x), expected, atol=1e-6)
    assert torch.equal(Projection(24, 5).weight, projection.weight)
    projection(x).sum().backward()
    assert projection.weight.grad is not None and not projection.weight.grad[:, 16:].any()


def test_features_of_the_teachers_width_need_no_projection() -> None:
    model = echo(width=16)
    assert Teacher(model, "feature", 0.5, widths=frozenset({16})).projection is None
    assert Teacher(model, "feature", 0.5, widths=frozenset({8, 16})).projection is not None


def echo(
    width: int = 4, size: int = 8, channels: int = 3, normalisation: tuple[Any, Any] | None = ((0.5,) * 3, (0.5,) * 3)
) -> Model:
    """A teacher that says what it was shown."""
    return Model(nn.Identity(), lambda images: images, width, 10, size, channels, normalisation)


def test_images_come_to_the_teacher_as_it_knows_them() -> None:
    """Grey in three channels, at its size, and normalised as in its own training where that of the data is known."""
    pixels = torch.rand(2, 1, 8, 8)
    images = (pixels - 0.4) / 0.2
    shown = Teacher(echo(), "logit", 0.5, images=((0.4,), (0.2,))).prepare(images).told
    assert shown.shape == (2, 3, 8, 8)
    assert torch.allclose(shown, ((pixels - 0.5) / 0.5).expand(-1, 3, -1, -1), atol=1e-5)
    assert torch.equal(Teacher(echo(), "logit", 0.5).prepare(images).told, images.expand(-1, 3, -1, -1))
    colour = torch.randn(2, 3, 8, 8)
    assert torch.equal(Teacher(echo(channels=1), "logit", 0.5).prepare(colour).told, colour.mean(1, keepdim=True))
    larger = Teacher(echo(size=20), "logit", 0.5).prepare(torch.ones(2, 1, 8, 8)).told
    assert larger.shape == (2, 3, 20, 20) and torch.allclose(larger, torch.ones(()), atol=1e-5)


def test_a_teacher_of_timm_is_the_same_at_every_start_and_leaves_the_generator_alone() -> None:
    net, images = supernet(), torch.randn(2, 1, 32, 32)
    before = torch.get_rng_state()
    one, two = teacher("logit", net), teacher("logit", net)
    assert torch.equal(torch.get_rng_state(), before)
    said = one.prepare(images).told
    assert said.shape == (2, 10) and torch.equal(said, two.prepare(images).told)
    assert not torch.equal(said[0], said[1])


def a_run(tmp_path: Path, giver: Supernet) -> str:
    """The folder of a finished run with these weights."""
    write = document(["distilled"])
    config = TrainConfig(space="small").model_dump(mode="json")
    folder = new_run(tmp_path, "giver", config, ["python"], seed=0).path
    write_space(folder, write)
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    checkpoints.save(7, of_module("supernet", giver), {})
    checkpoints.close()
    return str(folder)


def test_the_largest_network_of_a_run_teaches(tmp_path: Path) -> None:
    giver, images = supernet(), torch.randn(2, 1, 32, 32)
    made = teacher("logit", supernet(), a_run(tmp_path, giver))
    with torch.no_grad():
        expected = giver.extract(extremes(giver.space).largest)(images)
    assert torch.equal(made.prepare(images).told, expected)
    features = teacher("feature", supernet(), a_run(tmp_path / "other", giver)).prepare(images).told
    assert features.shape == (2, 24)


def test_wrong_wishes_are_refused(tmp_path: Path) -> None:
    net = supernet()
    with pytest.raises(InputError, match=r"unknown timm network.*test_vit"):
        teacher("logit", net, "timm:test_vitt")
    with pytest.raises(InputError, match="timm:<model> or the folder of a run"):
        teacher("logit", net, str(tmp_path / "nothing"))
    with pytest.raises(ValidationError, match="kind"):
        teacher("words", net)
    with pytest.raises(InputError, match=r"unknown kind of distillation.*logit"):
        Teacher(echo(), "logits", 0.5)
    with pytest.raises(InputError, match=r"classifier for the teacher, such as distilled.*class_token"):
        teacher("token", supernet(["distilled", "class_token"]))
    with pytest.raises(InputError, match="classifier for the teacher"):
        teacher("token", supernet("projected"))
    with pytest.raises(InputError, match="networks without exits"):
        teacher("feature", supernet(exit=["none", "linear"]))


def test_a_teacher_of_other_classes_is_refused_but_for_features(tmp_path: Path) -> None:
    folder = a_run(tmp_path, supernet())

    class Twelve:
        classes, channels, size = 12, 1, 32

    told = Distillation(teacher=folder, kind="logit")
    with pytest.raises(InputError, match="tells 10 classes apart, the data has 12"):
        Teacher.of(told, Twelve(), supernet())  # type: ignore[arg-type]
    told = Distillation(teacher=folder, kind="feature")
    assert Teacher.of(told, Twelve(), supernet()).kind == "feature"  # type: ignore[arg-type]


def test_networks_with_exits_learn_from_logits() -> None:
    net = supernet(exit="linear")
    made, images = teacher("logit", net), torch.randn(2, 1, 32, 32)
    network = net.bind(net.space.sample(Random(0)), train=True)
    *_, (_, logits) = network.forward_exits(images)
    loss = made.loss(network, None, logits, made.prepare(images))
    assert loss.isfinite() and loss.requires_grad
    assert made.loss(network, None, logits, Prepared(logits.detach())).item() == pytest.approx(0, abs=1e-5)
