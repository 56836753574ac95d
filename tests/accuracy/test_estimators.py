"""Estimators: their formulas on cases worked out by hand, and what all of them hold on random networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.accuracy import _passes, az_nas, dss, estimator, estimators, gradient_norm, naswot, snip, zen, zico
from nas.accuracy.base import KINDS, UNITS, Estimate, Estimator, Setting, Unscorable, comparable
from nas.core.architecture import Architecture
from nas.core.data import data_folder
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.yamlfile import load_yaml
from nas.model.around import spaces_around
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space, shared_rules
from nas.ops.catalogue import catalogue
from nas.ops.parts.cells import SampleNorm
from nas.ops.parts.norms import RmsNorm, TokenBatchNorm

PROXIES = [name for name, cls in estimators().items() if cls.kind == "proxy"]
TRIVIAL = [name for name, cls in estimators().items() if cls.kind == "trivial"]


def networks(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    chance = Random(seed)
    return [space.sample(chance) for _ in range(count)]


def digits(count: int) -> list[Architecture]:
    return networks(load_named_space("digits"), count)


@cache
def flagship(count: int) -> list[Architecture]:
    document = load_yaml(data_folder("search_spaces") / "mixed.yaml")
    assert isinstance(document, dict)
    return networks(Space.parse({**document, "input": 112, "classes": 10}, shared_rules(), "mixed at 112"), count, 3)


SMALL = Setting.noise(32, channels=1, classes=10, count=4)


def test_every_file_is_found_and_says_what_it_is() -> None:
    assert {"params", "macs", "depth_width"} <= set(TRIVIAL)
    assert {"naswot", "synflow", "snip", "gradient_norm", "zen", "zico", "dss", "az_nas"} <= set(PROXIES)
    for name, cls in estimators().items():
        assert cls.kind in KINDS and cls.unit in UNITS and cls.cost and estimator(name) is cls
        assert cls.about and "\n" not in cls.about


def test_an_unknown_name_is_told_with_those_like_it() -> None:
    with pytest.raises(InputError, match="unknown accuracy estimator: 'synflo'") as told:
        estimator("synflo")
    assert told.value.nearest[0] == "synflow"


@pytest.mark.parametrize("name, value", [("params", 5_717_416), ("macs", 1_253_683_200), ("depth_width", None)])
def test_trivial_ones_are_the_published_counts(name: str, value: int | None) -> None:
    """DeiT-Tiny: timm's count of parameters, the products by hand, and twelve blocks of width 192."""
    found = estimator(name)(SMALL).estimate(load_reference("deit_tiny").architecture).value
    assert found == pytest.approx(12 * math.log(192) if value is None else value, rel=1e-12)


def test_snip_and_gradient_norm_of_a_linear_layer() -> None:
    """The gradient by W is (p - y) x^T: with W = [[ln 3, 0], [0, 0]] and x = (1, 2), p is (3/4, 1/4)."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    weights = _passes.loss_gradients(layer, torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    assert torch.allclose(weights[0].gradient, torch.tensor([[-0.25, -0.5], [0.25, 0.5]]))
    assert gradient_norm.gradient_norm(weights) == pytest.approx(math.sqrt(0.625))
    assert snip.saliency(weights) == pytest.approx(0.25 * math.log(3))


def test_synaptic_flow_is_conserved_from_layer_to_layer() -> None:
    """Of a chain of linear layers, each has the same sum: that of the logits under absolute weights."""
    chain = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False))
    logits = torch.ones(3)
    for layer in chain:
        logits = layer.weight.detach().abs() @ logits
    weights = _passes.flow_gradients(chain, torch.randn(4, 3))
    assert [snip.saliency([weight]) for weight in weights] == pytest.approx([float(logits.sum())] * 3, rel=1e-6)


def test_flow_passes_norms() -> None:
    """A layer before a norm has as much flow as those after it, and equal channels are no end of it."""
    norms = (nn.LayerNorm(4), RmsNorm(4), SampleNorm(4))
    for norm in norms:
        chain = nn.Sequential(nn.Linear(3, 4, bias=False), norm, nn.Linear(4, 2, bias=False))
        nn.init.constant_(chain[0].weight, -0.5)
        weights = _passes.flow_gradients(chain, torch.randn(4, 3))
        total = float(chain[2].weight.detach().sum())  # absolute by now, and the norm gives ones
        assert [snip.saliency([weight]) for weight in weights] == pytest.approx([total, total])


def test_nuclear_norm_sums_singular_values_of_the_flattened_weight() -> None:
    assert dss.nuclear_norm(torch.diag(torch.tensor([3.0, -4.0]))) == pytest.approx(7)
    kernel = torch.zeros(2, 2, 2)
    kernel[0, 0, 0], kernel[1, 1, 1] = 5, 2
    assert dss.nuclear_norm(kernel) == pytest.approx(7)


@pytest.mark.parametrize(
    "activate",
    [F.gelu, F.relu, F.silu, torch.relu_, nn.ReLU(inplace=True), nn.Hardswish(), nn.ReLU6(), torch.tanh, torch.sigmoid],
)
def test_agreement_counts_equal_signs(activate: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Two codes of six bits that differ in two: [[6, 4], [4, 6]], of determinant 20."""
    one = torch.tensor([1.0, -1.0, 2.0, -0.5, 1.0, 1.0])
    two = torch.tensor([3.0, -2.0, -1.0, -0.5, -1.0, 0.1])
    with torch.no_grad(), naswot.Agreement(2) as agreement:
        activate(torch.stack((one, two)).reshape(2, 2, 3).clone())
        activate(torch.ones(4))  # of no image
    assert agreement.matrix.tolist() == [[6, 4], [4, 6]]
    assert naswot.log_determinant(agreement) == pytest.approx(math.log(20))


def test_equal_codes_and_no_codes_are_unscorable() -> None:
    with pytest.raises(Unscorable, match="no activation"):
        naswot.log_determinant(naswot.Agreement(2))
    with naswot.Agreement(2) as same:
        F.relu(torch.ones(2, 3, 3))
    with pytest.raises(Unscorable, match="same code"):
        naswot.log_determinant(same)


def test_inverse_variation_by_hand() -> None:
    """Means 1.5 and 2.5, deviations a half: log(3 + 5). A weight whose gradients agree does not count."""
    layer = torch.tensor([[1.0, 3.0, 7.0], [2.0, 2.0, 7.0]])
    assert zico.inverse_variation([layer]) == pytest.approx(math.log(8))
    assert zico.inverse_variation([layer, -layer]) == pytest.approx(2 * math.log(8))
    with pytest.raises(Unscorable, match="same"):
        zico.inverse_variation([torch.ones(2, 3)])


@pytest.mark.parametrize(
    "norm, shape",
    [(nn.LayerNorm(5), (4, 3, 5)), (TokenBatchNorm(5), (4, 3, 5)), (nn.BatchNorm2d(5), (4, 5, 3, 3))],
)
def test_deviation_is_what_a_norm_divides_by(norm: nn.Module, shape: tuple[int, ...]) -> None:
    """Times its result it gives the centred input back, where every row (or channel) has the same variance."""
    x = torch.randn(shape)
    like = norm.train()(x)  # of variance 1 where the norm takes it
    assert zen.deviation(norm, 7 * like.detach() + 3) == pytest.approx(7, rel=1e-3)


def test_deviation_of_a_norm_without_centring() -> None:
    assert zen.deviation(RmsNorm(4), torch.full((2, 3, 4), -2.0)) == pytest.approx(2)


def test_gaussian_weights() -> None:
    network = nn.Sequential(nn.Linear(100, 50), nn.Conv2d(8, 8, 3), nn.LayerNorm(8))
    zen.make_gaussian(network, torch.Generator().manual_seed(0))
    assert float(network[0].weight.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(network[1].weight.detach().std()) == pytest.approx(1, abs=0.1)
    assert not network[0].bias.any() and network[2].weight.eq(1).all()


def test_entropy_of_features() -> None:
    """Equal eigenvalues: log of their number. One direction: none."""
    even = torch.cat((torch.eye(8), -torch.eye(8)))[None]
    assert az_nas.entropy(even) == pytest.approx(math.log(8), abs=1e-5)
    line = torch.arange(6.0)[None, :, None] * torch.tensor([1.0, 2.0, 3.0])
    assert az_nas.entropy(line) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("factor, score", [(1.0, 0.0), (2.0, -0.5), (0.25, -2.25)])
def test_trainability_is_best_where_gradients_keep_their_length(factor: float, score: float) -> None:
    """One channel scaled by s gives 2 - s - 1/s exactly. Blocks that change the number of tokens do not count."""
    first = torch.randn(3, 5, 1, requires_grad=True)
    stage = [first, factor * first, (factor * first)[:, :2]]
    assert az_nas.trainability([stage], torch.Generator().manual_seed(0)) == pytest.approx(score)


def test_ranks_are_joined_by_their_logarithms() -> None:
    """Of three networks: (3, 1), (2, 2), (1, 3) over n = 3; the one that is middling in both is best."""
    made = [Estimate(0.0, parts=parts) for parts in ((9.0, -1.0), (5.0, 0.0), (1.0, 7.0))]
    assert comparable(made) == pytest.approx([math.log(1 / 3), 2 * math.log(2 / 3), math.log(1 / 3)])
    assert comparable([Estimate(3.0), Estimate(1.0)]) == [3.0, 1.0]
    tied = [Estimate(0.0, parts=(1.0, value)) for value in (1.0, 2.0)]
    assert comparable(tied) == pytest.approx([math.log(1.5 / 2) + math.log(1 / 2), math.log(1.5 / 2)])
    assert comparable([]) == []


@pytest.mark.parametrize("name", [*TRIVIAL, *PROXIES])
def test_same_seed_same_figure(name: str) -> None:
    """Whatever was scored before and whatever torch's generator is at, which is left as it was."""
    cls, (first, second, *rest) = estimator(name), digits(8)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    alone = cls(SMALL).estimate(second)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    used = cls(SMALL)
    others = [used.estimate(architecture).value for architecture in (first, *rest)]
    assert used.estimate(second) == alone
    assert len({alone.value, *others}) >= 6
    if cls.kind == "proxy":
        reseeded = Setting(SMALL.images, SMALL.labels, seed=1)
        assert cls(reseeded).estimate(second).value != alone.value
    ranked = used.rank([first, second, *rest])
    assert len(ranked) == 8 and all(map(math.isfinite, ranked))


@pytest.mark.parametrize("number, name", list(enumerate(PROXIES)))
def test_networks_of_the_flagship(number: int, name: str) -> None:
    """At half the resolution, each proxy on a network of its own."""
    setting = Setting.noise(112, classes=10, count=4)
    assert math.isfinite(estimator(name)(setting).estimate(flagship(8)[number % 8]).value)


@pytest.mark.parametrize("kind", ["embed", "position", "mixer", "feedforward", "reduction", "exit", "head"])
def test_every_operator_can_be_scored(kind: str) -> None:
    """By proxies in turn, so that each meets many operators."""
    operators = catalogue()
    for number, name in enumerate(operators.names(kind)):
        architecture = spaces_around(operators, kind, name)[0].sample(Random(0))
        setting = Setting.noise(architecture.input, architecture.channels, architecture.classes, count=4)
        for proxy in (PROXIES[number % len(PROXIES)], PROXIES[(number + 3) % len(PROXIES)]):
            assert math.isfinite(estimator(proxy)(setting).estimate(architecture).value), (proxy, name)


def test_another_size_of_images() -> None:
    """A network is scored as built for the images' size; where it does not stand, the reason is told."""
    deit = load_reference("deit_tiny").architecture
    small = Setting.noise(64, count=4)
    assert _passes.built(small, deit).architecture.input == 64
    assert math.isfinite(estimator("naswot")(small).estimate(deit).value)
    with pytest.raises(Unscorable, match="cannot be built for images of 40 pixels"):
        estimator("naswot")(Setting.noise(40, count=4)).estimate(deit)


@pytest.mark.parametrize(
    "images, labels, rule",
    [
        ((1, 3, 8, 8), torch.zeros(1, dtype=torch.int64), "at least two square images"),
        ((2, 3, 8, 9), torch.zeros(2, dtype=torch.int64), "at least two square images"),
        ((2, 3, 8, 8), torch.zeros(3, dtype=torch.int64), "one label"),
        ((2, 3, 8, 8), torch.zeros(2), "one label"),
        ((2, 3, 8, 8), torch.tensor([0, -1]), "one label"),
    ],
)
def test_a_setting_is_checked(images: tuple[int, ...], labels: torch.Tensor, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        Setting(torch.zeros(images), labels)


def test_a_setting_that_does_not_fit_the_network() -> None:
    (architecture,) = digits(1)
    with pytest.raises(InputError, match="images of 1 channels: 3"):
        estimator("snip")(Setting.noise(32, classes=10)).estimate(architecture)
    with pytest.raises(InputError, match="10 classes"):
        estimator("snip")(Setting(torch.zeros(2, 1, 32, 32), torch.tensor([0, 10]))).estimate(architecture)
    with pytest.raises(InputError, match="ZiCo needs 4 images"):
        estimator("zico")(Setting.noise(32, 1, 10, count=3)).estimate(architecture)


@pytest.mark.parametrize("figures", [(math.nan, None), (math.inf, None), (1.0, math.nan)])
def test_no_estimate_without_a_figure(figures: tuple[float, float | None]) -> None:
    with pytest.raises(Unscorable, match="not finite"):
        Estimate(*figures)


def test_a_failed_decomposition_is_a_reason() -> None:
    class Broken(Estimator):
        about, kind, cost = "a matrix of no eigenvalues", "proxy", "nothing"

        def measure(self, architecture: Architecture) -> Estimate:
            return Estimate(float(torch.linalg.eigvalsh(torch.full((3, 3), math.nan)).sum()))

    with pytest.raises(Unscorable):
        Broken(SMALL).estimate(digits(1)[0])
