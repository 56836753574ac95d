"""timm's networks in ours: random weights stand in for a checkpoint, read from a local folder as timm writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.model.costs import Costs
from nas.model.elastic import Elastic
from nas.model.reference import load_reference
from nas.training.pretrained import elastic_supernet, load_pretrained

SMALL = {"img_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}
Saved = Callable[..., tuple[str, nn.Module]]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Writes a network of timm with random weights, all away from 0 and 1, into a folder; gives its name and itself."""

    def save(name: str, **arguments: Any) -> tuple[str, nn.Module]:
        torch.manual_seed(0)
        network = timm.create_model(name, **arguments).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folder = tmp_path / name
        timm.models.save_for_hf(network, str(folder), model_args=arguments, safe_serialization=True)
        return f"local-dir:{folder}", network

    return save


def images(side: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_deit_tiny_becomes_elastic_with_equal_output(saved: Saved) -> None:
    name, theirs = saved("deit_tiny_patch16_224", img_size=64)
    loaded = load_pretrained(name)
    made = elastic_supernet(name)
    assert not loaded.fresh_classifier and loaded.network.architecture.input == 64
    with torch.no_grad():
        expected = theirs(images(64))
        torch.testing.assert_close(loaded.network(images(64)), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.supernet.bind(made.whole)(images(64)), expected, atol=1e-5, rtol=1e-5)
    assert made.whole in made.space and made.space.size > 1e12
    published = load_reference("deit_tiny").architecture
    assert Costs().cost(load_pretrained("deit_tiny_patch16_224@random").network.architecture) == Costs().cost(published)
    assert any("sorted by their weights" in note for note in made.notes)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("deit_tiny_distilled_patch16_224", SMALL),
        ("deit3_small_patch16_224", SMALL),
        ("vit_tiny_patch16_224", {**SMALL, "reg_tokens": 2}),
        ("vit_tiny_patch16_224", {**SMALL, "reg_tokens": 2, "no_embed_class": True, "init_values": 0.1}),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg", "fc_norm": False, "class_token": False}),
        ("vit_tiny_patch16_224", {**SMALL, "mlp_ratio": 2.5, "qkv_bias": False, "in_chans": 1}),
    ],
)
def test_plain_vision_transformers(saved: Saved, name: str, arguments: dict[str, Any]) -> None:
    local, theirs = saved(name, **arguments)
    made = elastic_supernet(local)
    with torch.no_grad():
        image = images(32, arguments.get("in_chans", 3))
        torch.testing.assert_close(made.supernet.bind(made.whole)(image), theirs(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "pvt_v2_b1"])
def test_pyramids_at_another_size(name: str) -> None:
    made = elastic_supernet(f"{name}@random", input=64, classes=3)
    assert (made.whole.input, made.whole.classes) == (64, 3)
    alone = load_pretrained(f"{name}@random", input=64, classes=3).network
    with torch.no_grad():
        found = made.supernet.bind(made.whole)(images(64))
        torch.testing.assert_close(found, alone(images(64)), atol=1e-5, rtol=1e-5)
    assert found.std() > 0


def test_other_classes_and_channels_are_adapted(saved: Saved) -> None:
    name, theirs = saved("vit_tiny_patch16_224", **SMALL)
    loaded = load_pretrained(name, classes=4, channels=1, input=48)
    assert loaded.fresh_classifier
    architecture = loaded.network.architecture
    assert (architecture.classes, architecture.channels, architecture.input) == (4, 1, 48)
    kept = theirs.state_dict()["blocks.1.mlp.fc1.weight"]
    assert torch.equal(loaded.network.state_dict()["stages.0.blocks.1.feedforward.up.weight"], kept)
    made = elastic_supernet(name, classes=4, batches=[(images(32), torch.tensor([1, 3]))])
    assert any("fresh, for 4 classes" in note for note in made.notes)
    assert any("sorted by their weights" in note for note in made.notes)  # a loss of fresh logits says nothing
    assert not load_pretrained(name, classes=7).fresh_classifier


def test_images_rank_the_units(saved: Saved) -> None:
    name, _ = saved("vit_tiny_patch16_224", **SMALL)
    batches = [(images(32), torch.tensor([1, 5])), (images(32) + 1, torch.tensor([0, 6]))]
    by_weights, by_loss = elastic_supernet(name), elastic_supernet(name, batches=batches)
    assert any("loss of training images" in note for note in by_loss.notes)
    with torch.no_grad():
        outputs = [made.supernet.bind(made.whole)(images(32)) for made in (by_weights, by_loss)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    differ = [
        not torch.equal(*pair)
        for pair in zip(by_weights.supernet.parameters(), by_loss.supernet.parameters(), strict=True)
    ]
    assert any(differ) and not all(differ)


def test_the_choices_are_the_users(saved: Saved) -> None:
    name, _ = saved("vit_tiny_patch16_224", **SMALL)
    made = elastic_supernet(name, Elastic(heads=[1.0], hidden=[1.0, 0.5], drop=0.0, keep=[], merge=[]))
    assert made.space.size == 2**3


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two, other = (
        load_pretrained("vit_tiny_patch16_224@random", input=32, seed=seed).network.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_the_hub_are_safetensors(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub stands in: what is asked of it is the safetensors file."""
    local, theirs = saved("deit_tiny_patch16_224")
    asked: list[str] = []

    def download(model_id: str, filename: str = "pytorch_model.bin", **_: Any) -> dict[str, Tensor]:
        asked.append(filename)
        return load_file(Path(local.removeprefix("local-dir:")) / "model.safetensors")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    network = load_pretrained("deit_tiny_patch16_224.fb_in1k", input=32).network
    assert asked == ["model.safetensors"]
    kept = theirs.state_dict()["blocks.1.mlp.fc1.weight"]
    assert torch.equal(network.state_dict()["stages.0.blocks.1.feedforward.up.weight"], kept)


# Refusals ------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown timm network") as caught:
        load_pretrained("deit_tiny_patch16_244")
    assert "deit_tiny_patch16_224" in caught.value.nearest


@pytest.mark.parametrize(
    "name, arguments, rule",
    [
        ("resnet10t", {}, "no map of this network"),
        ("vit_tiny_patch16_224", {**SMALL, "qk_norm": True}, "weights must match"),
        ("vit_tiny_patch16_224", {**SMALL, "pre_norm": True}, "weights must match"),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "map"}, "weights must match"),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "max"}, "answer as timm's"),
        ("vit_tiny_patch16_224", {**SMALL, "act_layer": "elu"}, "no such activation"),
    ],
)
def test_networks_without_a_counterpart_are_refused(
    saved: Saved, name: str, arguments: dict[str, Any], rule: str
) -> None:
    local, _ = saved(name, **arguments)
    with pytest.raises(InputError, match=rule):
        load_pretrained(local)


def test_a_folder_without_safetensors_is_refused(saved: Saved) -> None:
    """Weights as a pickle are not even opened."""
    local, theirs = saved("vit_tiny_patch16_224", **SMALL)
    folder = Path(local.removeprefix("local-dir:"))
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_pretrained(local)


def test_damaged_weights_are_refused(saved: Saved) -> None:
    local, _ = saved("vit_tiny_patch16_224", **SMALL)
    file = Path(local.removeprefix("local-dir:")) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="timm cannot make it"):
        load_pretrained(local)
