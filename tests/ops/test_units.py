"""Mask units and path masks: what the contract does not reach."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import Network
from nas.ops.base import Mixer
from nas.ops.embeds.mask_unit_pool import MaskUnitPool
from nas.ops.mixers.mask_unit import MaskUnit
from nas.ops.mixers.path_mask import PathMask
from nas.ops.mixers.softmax import Softmax
from nas.ops.reductions.unit_drop import UnitDrop
from nas.ops.rules import OperatorRules
from nas.ops.site import UNITS, Site
from nas.ops.tokens import Tokens, gather_rows

SITE = Site(16, 8, 8, 64)
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
RULES = OperatorRules()
M = TypeVar("M", bound=nn.Module)


def spread(module: M, like: nn.Module | None = None) -> M:
    """The module with weights far from trivial, or with those that the other has as well."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    if like is not None:
        module.load_state_dict(like.state_dict(), strict=False)
    return module.eval()


def features(site: Site = SITE) -> Tokens:
    x = torch.randn(2, site.rows, site.dim, generator=torch.Generator().manual_seed(0))
    return Tokens(x, site.height, site.width, site.prefix)


def run(mixer: Mixer, tokens: Tokens) -> Tensor:
    with torch.no_grad():
        return mixer(tokens.x, tokens)


def made(*blocks: dict[str, Any]) -> Network:
    """A small network of these blocks on a 16 x 16 grid."""
    stage = {"embed": "patch(size=4)", "dim": 32, "blocks": [{"feedforward": "mlp(ratio=2)", **b} for b in blocks]}
    space = Space.parse({"input": 64, "classes": 10, "stages": [stage], "head": "mean"}, RULES)
    torch.manual_seed(0)
    return spread(Network(space.only()))


# -- mask units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [0, 8, 20])
def test_a_unit_as_large_as_the_grid_is_global_attention(unit: int) -> None:
    softmax = spread(Softmax(SITE, heads=2))
    mixer = spread(MaskUnit(SITE, heads=2, unit=unit), softmax)
    torch.testing.assert_close(run(mixer, features()), run(softmax, features()), **CLOSE)


def test_units_are_attended_alone() -> None:
    tokens = features()
    softmax = spread(Softmax(SITE, heads=2))
    mixed = run(spread(MaskUnit(SITE, heads=2, unit=4), softmax), tokens)
    for top in (0, 4):
        for left in (0, 4):
            one = tokens.grid_of(tokens.x)[:, top : top + 4, left : left + 4].flatten(1, 2)
            out = tokens.grid_of(mixed)[:, top : top + 4, left : left + 4].flatten(1, 2)
            torch.testing.assert_close(out, run(softmax, Tokens(one, 4, 4)), **CLOSE)


def test_prefix_tokens_are_left_as_they_are() -> None:
    site = SITE._replace(prefix=2)
    tokens = features(site)
    mixer = spread(MaskUnit(site, heads=2, unit=4))
    out, without = run(mixer, tokens), run(mixer, Tokens(tokens.patches, 8, 8))
    assert not out[:, :2].any()
    torch.testing.assert_close(out[:, 2:], without, **CLOSE)


@pytest.mark.parametrize("unit", [2, 4])
def test_dropped_units_leave_the_others_unchanged(unit: int) -> None:
    tokens = features()
    mixer = spread(MaskUnit(SITE, heads=2, unit=unit))
    kept = UnitDrop(SITE, keep=0.5, size=4).train()(tokens)
    assert kept.index is not None and kept.count == 32
    sparse = spread(MaskUnit(SITE._replace(tokens=32, layout=UNITS, unit=4), heads=2, unit=unit), mixer)
    torch.testing.assert_close(run(sparse, kept), gather_rows(run(mixer, tokens), kept.index), **CLOSE)


def test_dropped_units_leave_the_others_unchanged_through_a_network() -> None:
    local: tuple[dict[str, Any], ...] = ({"mixer": "mask_unit(unit=4)"}, {"mixer": "mask_unit(unit=2)"})
    whole, sparse = made(*local), made({**local[0], "reduction": "unit_drop(keep=0.3, size=4)"}, local[1])
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        kept = sparse.forward_tokens(image)
        assert kept.index is not None and kept.count == 4 * 16
        torch.testing.assert_close(kept.x, gather_rows(whole.forward_features(image), kept.index), **CLOSE)
    cost, counted = Costs().cost(sparse.architecture), count(sparse, (3, 64, 64))
    assert (cost.macs, cost.params, cost.activation) == (counted.macs, counted.params, counted.activation)


def test_units_left_hold_the_units_of_later_mixers() -> None:
    drop = {"mixer": "softmax(heads=2)", "reduction": "unit_drop(size=4)"}
    for unit in (0, 1, 2, 4, 16):
        made(drop, {"mixer": f"mask_unit(unit={unit})"})
    for unit in (3, 8):
        with pytest.raises(InputError, match=f"mask unit left of 4x4 is not divisible by unit {unit}"):
            made(drop, {"mixer": f"mask_unit(unit={unit})"})


def test_pooling_keeps_units_apart() -> None:
    embed = spread(MaskUnitPool(SITE, dim=24, heads=2, unit=4))
    tokens = features()
    x = tokens.x.clone()
    x[:, 0] = -x[:, 0]  # a cell of the first unit
    with torch.no_grad():
        before, after = embed(tokens), embed(tokens.replace(x=x))
    changed = (before != after).any(dim=-1)[0].reshape(4, 4)
    assert changed[:2, :2].all() and not changed[2:].any() and not changed[:, 2:].any()


@pytest.mark.parametrize("unit", [0, 8])
def test_pooling_over_the_grid_by_hand(unit: int) -> None:
    """One head: queries and skip are the largest of each 2 x 2, keys and values all cells."""
    embed = spread(MaskUnitPool(SITE, dim=24, heads=1, unit=unit))
    tokens = features()
    with torch.no_grad():
        x = embed.norm(tokens.x)
        q, skip = (
            layer(x).reshape(2, 4, 2, 4, 2, 24).transpose(2, 3).reshape(2, 16, 4, 24).amax(dim=2)
            for layer in (embed.attention.q, embed.skip)
        )
        weights = (q @ embed.attention.k(x).transpose(1, 2) * 24**-0.5).softmax(dim=-1)
        expected = skip + embed.attention.out(weights @ embed.attention.v(x))
        torch.testing.assert_close(embed(tokens), expected, **CLOSE)


# -- path masks -------------------------------------------------------------------------------------------------------


def test_a_path_is_as_long_as_its_steps() -> None:
    """Along a leg the log weight is minus the sum of the steps between two cells, with the later cell's own."""
    site = Site(16, 3, 4, 12)
    mixer, grid = spread(PathMask(site, heads=2)), torch.randn(1, 3, 4, 16)
    with torch.no_grad():
        along, down = mixer.legs(grid)
        raw = grid.unflatten(-1, (2, 8)) @ mixer.steps.weight.T + mixer.step_bias[:, None]
        steps = nn.functional.softplus(raw) * mixer.log_speed.exp()[:, None]  # (1, H, W, h, 2)
    assert along.shape == (1, 3, 2, 4, 4) and down.shape == (1, 4, 2, 3, 3)
    for head in range(2):
        for i in range(3):
            for j, b in ((0, 3), (3, 0), (1, 2), (2, 2)):
                length = steps[0, i, min(j, b) + 1 : max(j, b) + 1, head, 0].sum()
                torch.testing.assert_close(along[0, i, head, j, b], -length, **CLOSE)
        for j in range(4):
            for i, a in ((0, 2), (2, 1), (1, 1)):
                length = steps[0, min(i, a) + 1 : max(i, a) + 1, j, head, 1].sum()
                torch.testing.assert_close(down[0, j, head, i, a], -length, **CLOSE)


def test_the_mask_follows_both_polylines() -> None:
    """Half the weight by the path along the query's row, then the key's column; half by the other corner's."""
    site = Site(8, 3, 4, 12)
    mixer, tokens = spread(PathMask(site, heads=1, rotary=False, lepe=0)), features(site)
    with torch.no_grad():
        along, down = mixer.legs(tokens.grid_of(tokens.x))
        cells = [(i, j) for i in range(3) for j in range(4)]
        path = torch.stack(
            [torch.stack([along[:, i, 0, j, b] + down[:, b, 0, i, a] for a, b in cells], dim=-1) for i, j in cells],
            dim=1,
        )
        q, k, v = mixer.attention.q(tokens.x), mixer.attention.k(tokens.x), mixer.attention.v(tokens.x)
        scores = q @ k.transpose(1, 2) * 8**-0.5
        weights = ((scores + path).softmax(dim=-1) + (scores + path.transpose(1, 2)).softmax(dim=-1)) / 2
        torch.testing.assert_close(run(mixer, tokens), mixer.attention.out(weights @ v), **CLOSE)


def test_without_steps_it_is_plain_attention() -> None:
    softmax = spread(Softmax(SITE, heads=2))
    mixer = spread(PathMask(SITE, heads=2, rotary=False, lepe=0), softmax)
    assert not torch.allclose(run(mixer, features()), run(softmax, features()))
    nn.init.constant_(mixer.log_speed, -60.0)
    torch.testing.assert_close(run(mixer, features()), run(softmax, features()), **CLOSE)


@pytest.mark.parametrize("axial", [False, True])
def test_with_long_steps_every_cell_sees_itself(axial: bool) -> None:
    mixer = spread(PathMask(SITE, heads=2, axial=axial, lepe=0))
    nn.init.constant_(mixer.log_speed, 30.0)
    with torch.no_grad():
        expected = mixer.attention.out(mixer.attention.v(features().x))
    torch.testing.assert_close(run(mixer, features()), expected, **CLOSE)


@pytest.mark.parametrize("height, width", [(1, 12), (12, 1)])
def test_on_a_line_both_forms_are_one(height: int, width: int) -> None:
    site = Site(16, height, width, 12)
    whole = spread(PathMask(site, heads=2))
    axes = spread(PathMask(site, heads=2, axial=True), whole)
    torch.testing.assert_close(run(axes, features(site)), run(whole, features(site)), **CLOSE)


def test_rotary_scores_depend_on_the_distance_in_row_order() -> None:
    mixer = PathMask(SITE, heads=1)
    q, k = torch.randn(16), torch.randn(16)

    def turned(x: Tensor, place: int) -> Tensor:
        x = x.unflatten(0, (8, 2))
        return x.flatten() * mixer.cos[place] + torch.stack((-x[:, 1], x[:, 0]), dim=1).flatten() * mixer.sin[place]

    torch.testing.assert_close(turned(q, 3) @ turned(k, 17), turned(q, 40) @ turned(k, 54), atol=1e-4, rtol=1e-4)
