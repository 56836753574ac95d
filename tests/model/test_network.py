"""A network has timm's manners: features, classifier, image sizes, stochastic depth, copies, precisions, fusing."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.around import spaces_around
from nas.model.network import Network, skeleton
from nas.model.program import exported
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space, shared_rules
from nas.ops.base import Operator
from nas.ops.catalogue import catalogue
from nas.ops.parts.drop import DropPath

OPERATORS = catalogue()


@cache
def around(kind: str, name: str) -> list[Space]:
    """Spaces around an operator, of one width."""
    return spaces_around(OPERATORS, kind, name, (48,))


def architecture(**stage: Any) -> Architecture:
    """A plain network of two blocks for images of 32 pixels, but for the keys of its stage."""
    top = {"input": 32, "classes": 5, "head": stage.pop("head", "mean")} | {"channels": stage.pop("channels", 3)}
    block = {"mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=2)"} | stage.pop("block", {})
    blocks = {"repeat": stage.pop("repeat", 2), **block}
    document = {**top, "stages": [{"embed": "patch(size=4)", "dim": 16, "blocks": [blocks], **stage}]}
    return Space.parse(document, shared_rules(), "here").only()


def made(wanted: Architecture, seed: int = 0, **knobs: Any) -> Network:
    """A network in eval mode whose weights, norms and statistics are neither 0 nor 1."""
    torch.manual_seed(seed)
    network = Network(wanted, **knobs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
        for name, statistic in network.named_buffers():
            if "running" in name:
                statistic.add_(0.3 * torch.rand_like(statistic))
    return network


def images(wanted: Architecture, count: int = 2) -> Tensor:
    return torch.randn(count, wanted.channels, wanted.input, wanted.input, generator=torch.Generator().manual_seed(1))


def random_networks(space: str, count: int, seed: int = 0) -> list[Architecture]:
    chance = Random(seed)
    return [load_named_space(space).sample(chance) for _ in range(count)]


# Features and classifier ---------------------------------------------------------------------------------------------

HEADS = [
    pytest.param(space.sample(Random(1)), id=f"{name}-{number}")
    for name in OPERATORS.names("head")
    for number, space in enumerate(around("head", name))
]


@pytest.mark.parametrize("wanted", HEADS)
@torch.no_grad()
def test_features_head_and_classifier(wanted: Architecture) -> None:
    network, image = made(wanted), images(wanted)
    features, logits = network.forward_features(image), network(image)
    assert features.shape == (2, network.out.rows, network.num_features) and network.num_features == 48
    assert torch.equal(network.forward_head(features), logits) and logits.shape == (2, wanted.classes)
    pooled = network.forward_head(features, pre_logits=True)
    classifier = network.get_classifier()
    assert isinstance(classifier, nn.Linear)
    assert (network.num_classes, classifier.out_features) == (wanted.classes, wanted.classes)
    assert pooled.shape == (2, classifier.in_features)

    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.reset_classifier(7)
    after = network.state_dict()
    fresh = {name for name, value in after.items() if name not in before or value.shape != before[name].shape}
    assert fresh and all(name.startswith("head.") and after[name].shape[0] == 7 for name in fresh)
    assert all(torch.equal(value, before[name]) for name, value in after.items() if name not in fresh)
    assert 0 < after["head.classifier.weight"].std() < 0.1 and not after["head.classifier.bias"].any()
    assert network(image).shape == (2, 7) and network.num_classes == 7
    assert network.get_classifier().out_features == 7
    assert torch.equal(network.forward_head(network.forward_features(image), pre_logits=True), pooled)

    network.reset_classifier(0)
    assert network(image).shape == pooled.shape and network.num_classes == 0
    if wanted.head.name != "distilled_mean":  # whose two norms belong to its classifiers, as timm's do
        torch.testing.assert_close(network(image), pooled)
    network.reset_classifier(3)
    assert network(image).shape == (2, 3)


def test_a_new_classifier_follows_precision() -> None:
    network = made(architecture()).double()
    network.reset_classifier(3)
    assert network(images(network.architecture).double()).dtype == torch.float64


@pytest.mark.parametrize("channels, classes", [(1, 2), (4, 7)])
def test_channels_and_classes(channels: int, classes: int) -> None:
    for wanted in random_networks("mixed", 2):
        wanted = dataclasses.replace(wanted, channels=channels, classes=classes)
        with torch.no_grad():
            assert made(wanted)(images(wanted)).shape == (2, classes)


# Image sizes ---------------------------------------------------------------------------------------------------------

FREE: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"block": {"position": "rotary"}},
    "mixed rotary": {"block": {"position": "rotary(kind=mixed, theta=10.0)"}},
    "peg": {"block": {"position": "peg"}},
    "sincos": {"position": "sincos"},
    "convolutions": {
        "embed": "stem_halving(convs=2)",
        "block": {"mixer": "rep_depthwise(squeeze=true)", "feedforward": "inverted"},
    },
    "windows": {"block": {"mixer": "window(size=4, shift=true, heads=2)"}},
}
BOUND: dict[str, tuple[dict[str, Any], str]] = {
    "table": ({"position": "learned"}, "'stages.0.position.table'"),
    "relative bias": ({"block": {"position": "relative_bias"}}, "'stages.0.blocks.0.position.table'"),
    "token mlp": ({"block": {"mixer": "token_mlp"}}, "'stages.0.blocks.0.mixer."),
    "patches": ({"embed": "patch(size=32)"}, "stages[0].embed"),
}


@pytest.mark.parametrize("name", FREE)
@torch.no_grad()
def test_other_image_sizes(name: str) -> None:
    network = made(architecture(**FREE[name]), drop_path=0.2)
    large = network.resized(48)
    assert large.architecture == dataclasses.replace(network.architecture, input=48)
    assert large(images(large.architecture)).shape == (2, 5)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in large.state_dict().items())
    assert large.drop_path == 0.2 and not large.training
    back, image = large.resized(32), images(network.architecture)
    assert torch.equal(back(image), network(image))
    large.get_classifier().weight.zero_()  # type: ignore[operator]
    assert torch.equal(back(image), network(image)), "a network of its own"


def test_published_networks_run_at_another_size() -> None:
    for name in ("repvit_m1_0", "cpvt_small", "rope_mixed_vit_small"):
        network = made(load_reference(name).architecture).resized(256)
        with torch.no_grad():
            assert network(images(network.architecture, 1)).shape == (1, 1000)


def test_a_convolution_network_is_the_same_function_at_another_size() -> None:
    """Inside the border, a larger image is only more of the same."""
    stage = {**FREE["convolutions"], "block": {"mixer": "rep_depthwise", "feedforward": "inverted"}, "repeat": 1}
    network = made(architecture(**stage)).double()
    large = network.resized(64)
    image = images(large.architecture, 1).double()
    with torch.no_grad():
        small, whole = network.forward_features(image[..., :32, :32]), large.forward_features(image)
    torch.testing.assert_close(whole.unflatten(1, (16, 16))[:, :5, :5], small.unflatten(1, (8, 8))[:, :5, :5])


@pytest.mark.parametrize("name", BOUND)
def test_what_is_bound_to_a_size_refuses_another(name: str) -> None:
    stage, place = BOUND[name]
    network = made(architecture(**stage))
    with pytest.raises(InputError) as refused:
        network.resized(48)
    assert "images of 48 pixels instead of 32" in str(refused.value) and place in str(refused.value)


def test_an_image_of_another_shape_is_refused() -> None:
    network = made(architecture(position="learned"))
    for shape in ((2, 3, 48, 48), (2, 1, 32, 32), (2, 3, 32, 16)):
        for call in (network, network.forward_features, network.forward_exits):
            with pytest.raises(InputError, match=r"reads images \(B, 3, 32, 32\).*resized"):
                call(torch.randn(shape))


# Exits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS.names("exit"))
@torch.no_grad()
def test_each_sample_leaves_at_the_first_sure_exit(name: str) -> None:
    wanted = around("exit", name)[0].sample(Random(0))
    (stage,) = wanted.stages
    first, *_ = stage.blocks
    wanted = dataclasses.replace(wanted, stages=(dataclasses.replace(stage, blocks=(first, first, stage.blocks[1])),))
    network, image = made(wanted), images(wanted, 12)
    assert len(network.exits) == 2
    early = [logits for _, logits in network.forward_exits(image)]
    for exit, logits in zip(network.exits, early, strict=False):
        exit.threshold = float(logits.softmax(-1).amax(-1).median())
    (one, first_logits), (two, second_logits), (zero, last_logits) = network.forward_exits(image)
    assert zero == 0 and [exit.threshold for exit in network.exits] == [one, two]
    left = set()
    for sample, logits in enumerate(network(image)):
        if first_logits[sample].softmax(-1).max() >= one:
            expected, place = first_logits, 1
        elif second_logits[sample].softmax(-1).max() >= two:
            expected, place = second_logits, 2
        else:
            expected, place = last_logits, 3
        left.add(place)
        assert torch.equal(logits, expected[sample])
    assert {1, 3} <= left, "the test sees samples leave at different places"

    network.reset_classifier(4)
    assert [logits.shape for _, logits in network.forward_exits(image)] == [(12, 4)] * 3
    assert network(image).shape == (12, 4)
    network.reset_classifier(0)
    assert torch.equal(network(image), network.head(network.forward_tokens(image)))


# Stochastic depth ----------------------------------------------------------------------------------------------------


def test_drop_path() -> None:
    wanted = architecture(repeat=5)
    network, plain = made(wanted, drop_path=0.4), made(wanted)
    blocks: Any = network.stages[0].blocks
    assert [block.drop.rate for block in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    image = images(wanted, 16)
    with torch.no_grad():
        assert torch.equal(network(image), plain(image)), "in eval mode nothing is dropped"
        assert torch.equal(plain.train()(image), plain.eval()(image))
        network.train()
        one, two = network(image), network(image)
        assert not torch.allclose(one, two)
        torch.manual_seed(3)
        again = network(image)
        torch.manual_seed(3)
        assert torch.equal(network(image), again)
    network(image).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_drop_path_keeps_the_expected_value() -> None:
    torch.manual_seed(0)
    x = torch.ones(20_000, 3)
    dropped = DropPath(0.3).train()(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(dropped[:, :1].expand_as(dropped), dropped), "a sample is dropped whole"
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)


# Copies and precisions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [*random_networks("digits", 3), *random_networks("mixed", 1, 7)], ids=lambda _: "")
def test_saved_copied_and_repeated(wanted: Architecture, tmp_path: Path) -> None:
    network, image = made(wanted), images(wanted)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = made(wanted, seed=1)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    twin = copy.deepcopy(network)
    torch.manual_seed(5)
    first = Network(wanted).state_dict()
    torch.manual_seed(5)
    assert all(torch.equal(value, first[name]) for name, value in Network(wanted).state_dict().items())
    with torch.no_grad():
        logits = network(image)
        assert torch.equal(other(image), logits) and torch.equal(twin(image), logits)
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(twin(image), logits)


@pytest.mark.parametrize("space, count", [("digits", 4), ("mixed", 3)])
def test_low_precision(space: str, count: int) -> None:
    for seed, wanted in enumerate(random_networks(space, count, seed=21)):
        torch.manual_seed(seed)
        network, image = Network(wanted).train(), images(wanted)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
        logits.float().square().mean().backward()
        check_gradients(network, logits)
        network.zero_grad()
        network.to(torch.bfloat16)
        logits = network(image.to(torch.bfloat16))
        assert logits.dtype == torch.bfloat16
        logits.float().square().mean().backward()
        check_gradients(network, logits)


def check_gradients(network: nn.Module, logits: Tensor) -> None:
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients and all(bool(gradient.isfinite().all()) for gradient in [logits, *gradients])


# Fusing --------------------------------------------------------------------------------------------------------------

FUSING = [(kind, name) for kind, name, cls in OPERATORS.every() if cls.fuse is not Operator.fuse]
STAYS = {  # batch norms that no product beside them can take in
    "head:mean": "the mean's features are normed ones",
    "exit:convolution": "it stands before a padded convolution",
}


def check_fused(network: Network) -> None:
    """Equal in eval mode, also when fused twice; in double precision, where no rounding hides a fault."""
    network = network.double().eval()
    image = images(network.architecture).double()
    with torch.no_grad():
        expected = network(image)
        assert network.fuse() is network
        found = network(image)
        torch.testing.assert_close(found, expected)
        assert torch.equal(network.fuse()(image), found)


@pytest.mark.parametrize("kind, name", FUSING, ids=lambda text: text)
def test_fused_operators_are_the_same_function(kind: str, name: str) -> None:
    for space in around(kind, name):
        check_fused(made(space.sample(Random(2))))


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, name, _ in OPERATORS.every()], ids=lambda text: text)
def test_no_batch_norm_is_left(kind: str, name: str) -> None:
    cls = OPERATORS.get(kind, name)
    left = False
    for space in around(kind, name):
        for module in skeleton(space.sample(Random(2))).fuse().modules():
            left |= isinstance(module, cls) and any(isinstance(inner, _BatchNorm) for inner in module.modules())
    assert left == (f"{kind}:{name}" in STAYS)


@pytest.mark.parametrize("name", ["mobilevit_s", "cvt_13", "swiftformer_s", "repvit_m1_0", "volo_d1"])
def test_fused_published_networks_are_the_same_function(name: str) -> None:
    wanted = load_reference(name).architecture
    check_fused(made(dataclasses.replace(wanted, input=64)))


def test_fused_random_networks_are_the_same_function() -> None:
    for wanted in random_networks("mixed", 2, seed=3):
        check_fused(made(wanted))


def test_a_fused_network_has_fewer_parameters_and_can_be_resized_and_copied() -> None:
    wanted = architecture(**FREE["convolutions"])
    network, image = made(wanted), images(wanted)
    before = sum(parameter.numel() for parameter in network.parameters())
    network.fuse()
    assert sum(parameter.numel() for parameter in network.parameters()) < before
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        again = network.resized(48).resized(32)
        assert torch.equal(again(image), network(image)) and torch.equal(copy.deepcopy(network)(image), network(image))
    network.reset_classifier(3)
    assert network.resized(48).num_classes == 3


@pytest.mark.parametrize("batch", [1, 2])
def test_every_map_is_channels_last(batch):
    """Convolutions copy any other map, at a batch of one as well."""
    wanted = architecture(block={"mixer": "depthwise(kernel=3)", "feedforward": "inverted(kernel=3)"})
    network, seen = made(wanted), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(images(wanted, batch))
    assert len(seen) == 5 and all(image.is_contiguous(memory_format=torch.channels_last) for image in seen)


@pytest.mark.parametrize(("after", "left"), [("softmax(heads=2)", False), ("residual_logits(heads=2)", True)])
def test_what_a_mixer_leaves_is_kept_where_it_is_read(after, left):
    giver = {"mixer": "residual_logits(heads=2)"}
    wanted = architecture(repeat=1)
    document = wanted.to_dict()
    document["stages"][0]["blocks"] = [giver, {"mixer": after}]
    network, seen = made(Space.parse(document, shared_rules(), "here").only()), []
    network.stages[0].blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].previous))
    network(images(wanted))
    assert bool(seen[0]) is left


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_an_activation_that_overwrites_gives_the_same_bits(activation):
    wanted = architecture(block={"feedforward": f"mlp(ratio=2, activation={activation})"})
    network, image = made(wanted), images(wanted)
    with torch.no_grad():
        out = network(image)
        assert torch.equal(exported(network, (image,)).module()(image), out)
    assert torch.equal(network(image), out)
    overwritten = network.stages[0].blocks[0].feedforward.activation
    row = torch.randn(3)
    with torch.no_grad():
        assert overwritten(row) is row
