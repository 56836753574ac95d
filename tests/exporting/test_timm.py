"""The timm target: stock networks are timm's own, any other is the registered one, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import timm
import torch
from safetensors import SafetensorError

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.exporting.checking import largest_difference
from nas.exporting.registered import NAME, TimmNetwork, as_map
from nas.exporting.stock import stock_of
from nas.exporting.subject import Subject
from nas.exporting.targets import timm as target
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space
from nas.ops.tokens import Tokens
from nas.training.pretrained import load_pretrained
from tests.exporting.networks import parsed, plain, pyramid, reducing, subject

DISTILLED = {"stage": {"distill_token": True}, "head": "distilled"}
STOCK: dict[str, Architecture] = {
    "class token": plain(),
    "one channel, other sizes": plain({"dim": 24, "embed": "patch(size=8)"}, {"repeat": 3}, channels=1, classes=2),
    "registers": plain({"registers": 3}),
    "positions of patches alone": plain({"position": "learned(prefix=False)", "registers": 1}),
    "mean": plain({"class_token": False}, head="mean(eps=1e-6)"),
    "mean before the norm": plain({"class_token": False}, head="mean(eps=1e-6, order=pool_first)"),
    "mean beside a class token": plain({}, head="mean(eps=1e-6)"),
    "no positions": plain({"class_token": False, "position": "none"}, head="mean(eps=1e-6)"),
    "other epsilon": plain({}, {"norm": "layer(eps=1e-5)"}, head="class_token(eps=1e-5)"),
    "scales": plain({}, {"layer_scale": 0.1}),
    "odd width, activation": plain({}, {"feedforward": "mlp(hidden=37, activation=quick_gelu)"}),
    "no bias": plain({}, {"mixer": "softmax(heads=4, qkv_bias=False)"}),
    "distilled": plain(**DISTILLED),
}
OTHER: dict[str, Architecture] = {
    "temperature": plain({}, {"mixer": "softmax(heads=2, temperature=2.0)"}),
    "heads that do not fill the width": plain({}, {"mixer": "softmax(heads=2, head_dim=4)"}),
    "two epsilons": plain({}, {"norm": "layer(eps=1e-5)"}),
    "an epsilon that timm has not": plain({}, {"norm": "layer(eps=1e-4)"}, head="class_token(eps=1e-4)"),
    "positions in blocks": plain({}, {"position": "peg"}),
    "fixed positions": plain({"position": "sincos"}),
    "no positions, but a class token": plain({"position": "none"}),
    "another norm": plain({}, {"norm": "rms"}),
    "a norm behind the patches": plain({"embed": "patch(size=4, norm=layer)"}),
    "another mixer": plain({}, {"mixer": "additive"}),
    "a token that the head does not read": plain({"distill_token": True}),
    "two stages": pyramid(),
    "tokens dropped, and exits": reducing("evit(keep=0.5)"),
    "tokens merged": reducing("tome(r=4)"),
}


@pytest.mark.parametrize("name", STOCK)
def test_a_plain_network_leaves_as_one_of_timm(name: str, tmp_path: Path) -> None:
    one = subject(STOCK[name])
    target.write(one, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] in timm.list_models(module=["vision_transformer", "deit"])
    assert "license" not in config["pretrained_cfg"] and "hf_hub_id" not in config["pretrained_cfg"]
    assert largest_difference("timm", one, tmp_path) < 1e-5
    back = load_pretrained(f"local-dir:{tmp_path}").network  # read by other code, from timm's modules
    own, again = one.network.state_dict(), back.state_dict()
    assert own.keys() == again.keys() and all(torch.equal(value, own[key]) for key, value in again.items())


@pytest.mark.parametrize("name", ["pvt_v2_b1", "repvit_m1_0"])
def test_a_reference_network_leaves_as_itself(name: str, tmp_path: Path) -> None:
    reference = load_reference(name)
    one = subject(parsed({**reference.architecture.to_dict(), "classes": 3}))
    target.write(one, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == reference.timm
    assert largest_difference("timm", one, tmp_path) < 1e-4


@pytest.mark.parametrize("name", OTHER)
def test_any_other_network_is_the_registered_one(name: str, tmp_path: Path) -> None:
    one = subject(OTHER[name])
    assert stock_of(one.architecture) is None
    target.write(one, tmp_path)
    model = target.loaded(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == NAME
    with torch.no_grad():
        assert torch.equal(model(one.images()), one.network(one.images()))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Subject, str]]:
    """Networks of each kind with the address of their folder."""
    found = {}
    kinds = {"plain": "positions in blocks", "pyramid": "two stages", "dropped": "tokens dropped, and exits"}
    for name, kind in {**kinds, "merged": "tokens merged"}.items():
        folder = tmp_path_factory.mktemp(name)
        one = subject(OTHER[kind])
        target.write(one, folder)
        found[name] = (one, f"local-dir:{folder}")
    return found


@pytest.mark.parametrize("name", ["plain", "pyramid", "dropped"])
def test_another_number_of_classes_keeps_all_but_the_classifiers(name: str, folders: Any) -> None:
    one, address = folders[name]
    model = timm.create_model(address, pretrained=True, num_classes=7, drop_path_rate=0.2).eval()
    assert model(one.images()).shape == (2, 7) and model.num_classes == 7 and model.network.drop_path == 0.2
    own, kept = one.network.state_dict(), model.network.state_dict()
    fresh = set()
    for key, value in own.items():
        if value.shape != kept[key].shape:
            fresh.add(key)
        else:
            assert torch.equal(value, kept[key]), key
    assert fresh and all("classifier" in key for key in fresh)
    bare = timm.create_model(address, pretrained=True, num_classes=0).eval()
    assert torch.equal(bare(one.images()), one.network.forward_head(one.network.forward_features(one.images()), True))


@pytest.mark.parametrize(("name", "features"), [("plain", 2), ("pyramid", 2), ("dropped", 3), ("merged", 3)])
def test_features(name: str, features: int, folders: Any) -> None:
    one, address = folders[name]
    places = list(range(features))
    model = timm.create_model(address, pretrained=True, features_only=True, out_indices=places).eval()
    whole = timm.create_model(address, pretrained=True).eval()
    with torch.no_grad():
        maps = model(one.images())
        last, tokens = whole.forward_intermediates(one.images(), output_fmt="NLC")
        (early,) = whole.forward_intermediates(one.images(), [0], stop_early=True, intermediates_only=True)
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    for found, dim, reduction in zip(maps, channels, reductions, strict=True):
        assert found.shape == (2, dim, 16 // reduction, 16 // reduction)
    assert torch.equal(last, one.network.forward_features(one.images())) and torch.equal(early, maps[0])
    prefix = last.shape[1] - tokens[-1].shape[1]
    assert torch.equal(tokens[-1], last[:, prefix:]) or name == "pyramid"
    assert not any("head" in key for key, _ in model.named_parameters())
    if name == "dropped":
        assert [each.shape[1] for each in tokens] == [16, 9, 6]
        empty = int((maps[-1].abs().sum(1) == 0).sum())  # five tokens stay, of which one may stand for no cell
        assert 2 * (16 - 5) <= empty <= 2 * (16 - 4), "cells whose token was dropped"
    if name == "merged":
        assert [each.shape[1] for each in tokens] == [16, 12, 8]
        assert len(maps[-1][0].flatten(1).unique(dim=1).T) == 8, "cells share the token that stands for them"


def test_a_map_of_tokens_has_a_value_at_every_cell() -> None:
    rows = torch.arange(1.0, 4.0)[None, :, None]
    dropped = as_map(Tokens(rows, 2, 2, index=torch.tensor([[0, 3, -1]])))
    assert dropped.flatten().tolist() == [1, 0, 0, 2]
    merged = as_map(Tokens(rows, 2, 2, cover=torch.tensor([[2, 1, 1, 0]])))
    assert merged.flatten().tolist() == [3, 2, 2, 1]
    whole = as_map(Tokens(torch.arange(5.0)[None, :, None], 2, 2, prefix=1))
    assert whole.flatten().tolist() == [1, 2, 3, 4]


def test_manners_of_timms_training(folders: Any) -> None:
    from timm.models import group_parameters

    _, address = folders["dropped"]
    model = timm.create_model(address, pretrained=True, drop_rate=0.0)
    model.set_grad_checkpointing()
    model.train()(torch.randn(4, 3, 16, 16)).sum().backward()
    depths = group_parameters(model, model.group_matcher(), reverse=True)
    assert depths.keys() == {name for name, _ in model.named_parameters()}
    first, last = depths["network.stages.0.embed.projection.weight"], depths["network.head.classifier.weight"]
    middle = [depths[f"network.stages.0.blocks.{place}.feedforward.up.weight"] for place in range(3)]
    assert [first, *middle, last] == sorted({first, *middle, last})
    assert {"network.stages.0.class_token", "network.stages.0.position.table"} <= model.no_weight_decay()
    assert model.get_classifier() is model.network.head.classifier


@pytest.mark.parametrize(
    "wrong", [{"global_pool": "avg"}, {"drop_rate": 0.1}, {"img_size": (16, 32)}, {"network": {"stages": [1]}}]
)
def test_what_these_networks_have_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TimmNetwork(**{"network": pyramid().to_dict(), **wrong})


def test_other_images(folders: Any) -> None:
    _, address = folders["pyramid"]
    model = timm.create_model(address, pretrained=True, img_size=32)
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 5)


def test_images_are_described_as_the_weights_were_trained(tmp_path: Path) -> None:
    told = {"data": {"name": "folder:x", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "crop_pct": 0.875}}
    for name, source, mean in (("a", told, (0.5, 0.5, 0.5)), ("b", {}, (0.0, 0.0, 0.0))):
        (tmp_path / name).mkdir()
        target.write(subject(plain(), source=source), tmp_path / name)
        config = timm.data.resolve_model_data_config(target.loaded(tmp_path / name))
        assert tuple(config["mean"]) == mean and tuple(config["input_size"]) == (3, 16, 16)


def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match=r"cannot be written .*No space left"):
        target.write(subject(plain()), tmp_path)


def test_spaces_leave_bit_equal(tmp_path: Path) -> None:
    """Random networks of the digits space, each in the form that it has."""
    space, random = load_named_space("digits"), Random(1)
    for place in range(6):
        one = subject(space.sample(random))
        (tmp_path / str(place)).mkdir()
        target.write(one, tmp_path / str(place))
        model = target.loaded(tmp_path / str(place))
        with torch.no_grad():
            found, wanted = model(one.images()), one.network(one.images())
        assert torch.allclose(found, wanted, atol=1e-5)
        if isinstance(model, TimmNetwork):
            assert torch.equal(found, wanted)
            maps = model.forward_intermediates(one.images(), intermediates_only=True)
            assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
