"""Positions, stems, heads, gated feed-forwards: what the contract does not reach."""

from __future__ import annotations

import copy
import math
import random
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import SwiGLU
from timm.models.beit import RelativePositionBias
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.network import Network
from nas.model.reference import load_reference
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.model.timm_weights import load_timm
from nas.ops.embeds.hmlp import Hmlp
from nas.ops.embeds.residual_reduction import ResidualReduction
from nas.ops.embeds.stem_resnas import StemResnas
from nas.ops.embeds.tokens_to_token import Thin
from nas.ops.feedforwards.gated import Gated
from nas.ops.heads.distilled import Distilled
from nas.ops.heads.ggem import Ggem
from nas.ops.parts.attention import rotate
from nas.ops.positions.relative_bias import RelativeBias
from nas.ops.positions.rotary import Rotary
from nas.ops.positions.sincos import Sincos
from nas.ops.site import Site
from nas.ops.tokens import Tokens

GRID = Site(dim=48, height=6, width=5, tokens=30, prefix=1, heads=2, head_dim=24)


def state(site: Site, batch: int = 2) -> Tokens:
    return Tokens(torch.randn(batch, site.rows, site.dim), site.height, site.width, site.prefix)


def stir(module: nn.Module) -> nn.Module:
    """The module with parameters and statistics that are neither 0 nor 1."""
    statistics = [tensor for name, tensor in module.named_buffers() if "running" in name]
    with torch.no_grad():
        for tensor in (*module.parameters(), *statistics):
            tensor.add_(0.1 * torch.rand_like(tensor))
    return module


def plain(**changes: object) -> dict[str, object]:
    block = {"repeat": 2, "mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=4)"}
    stage = {"embed": "patch(size=16)", "dim": 48, "class_token": True, "blocks": [block]}
    return {"input": 64, "classes": 10, "stages": [stage | changes], "head": "class_token"}


def only(document: dict[str, object]) -> Architecture:
    return Space.parse(document, shared_rules()).only()


# -- positions --------------------------------------------------------------------------------------------------------


def test_sincos_by_its_formula() -> None:
    grid, sequence = Sincos(GRID).table, Sincos(GRID, kind="sequence").table
    row, column, i = 4, 3, 5
    angles = [place / 10_000 ** (i / 12) for place in (column, row)]
    found = grid[row * GRID.width + column]
    for quarter, angle in enumerate(angles):
        assert found[24 * quarter + i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert found[24 * quarter + 12 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert sequence.shape == (GRID.rows, GRID.dim)
    assert sequence[7, 2 * i].item() == pytest.approx(math.sin(7 / 10_000 ** (2 * i / 48)), abs=1e-6)
    assert sequence[7, 2 * i + 1].item() == pytest.approx(math.cos(7 / 10_000 ** (2 * i / 48)), abs=1e-6)


@pytest.mark.parametrize("kind", ["axial", "mixed"])
def test_rotary_scores_depend_on_the_offset_alone(kind: str) -> None:
    torch.manual_seed(0)
    tokens = Rotary(GRID, kind=kind)(state(GRID))
    q, k = (torch.randn(1, 2, 1, 24).expand(1, 2, 31, 24) for _ in range(2))
    scores = rotate(q, tokens.rotary, 1) @ rotate(k, tokens.rotary, 1).transpose(-2, -1)
    cells = scores[0, :, 1:, 1:].reshape(2, 6, 5, 6, 5)
    torch.testing.assert_close(cells[:, 1:, 2:, 1:, 2:], cells[:, :-1, :-2, :-1, :-2], atol=1e-5, rtol=1e-5)
    assert (scores[0, :, 1, 1:] - scores[0, :, 1, 1:2]).abs().max() > 0.1, "they do depend on it"
    assert torch.equal(rotate(q, tokens.rotary, 1)[:, :, :1], q[:, :, :1]), "prefix tokens do not turn"


@pytest.mark.parametrize("kind", ["axial", "mixed"])
def test_rotary_on_a_subset_is_the_gather(kind: str) -> None:
    torch.manual_seed(0)
    operator, tokens = Rotary(GRID, kind=kind), state(GRID)
    index = torch.stack([torch.randperm(30)[:7] for _ in range(2)])
    whole = operator(tokens).rotary
    kept = operator(tokens.select(index, extra=torch.randn(2, 1, 48))).rotary
    for full, part in zip(whole, kept, strict=True):
        picked = full.expand(2, 2, -1, -1).take_along_dim(index[:, None, :, None], dim=2)
        torch.testing.assert_close(part.expand(2, 2, -1, -1)[:, :, :7], picked)
    assert (kept[0][:, :, 7] == 1).all() and (kept[1][:, :, 7] == 0).all(), "a fused token does not turn"


def test_rotary_of_merged_tokens_stands_at_the_mean_place() -> None:
    cover = torch.arange(30)[None] // 2  # cells 2i and 2i + 1 are token i
    tokens = Tokens(torch.randn(1, 15, 48), 6, 5, layout="merged", cover=cover, size=torch.full((1, 15), 2.0))
    places = Rotary(GRID._replace(prefix=0))._places(tokens)
    assert torch.equal(places[0, :3], torch.tensor([[0.5, 0.0], [2.5, 0.0], [2.0, 0.5]]))


def test_axial_rotary_equals_timm() -> None:
    torch.manual_seed(0)
    small = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 10}
    theirs = stir(timm.create_model("vit_small_patch16_rope_224", **small)).eval()
    document = plain(block={"position": "rotary", "layer_scale": 1e-5})
    ours = Network(only(document), init=False).eval()
    load_timm(ours, theirs.state_dict(), "rope_vit")
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-5)


def test_mixed_rotary_needs_no_fitting_to_another_input() -> None:
    document = plain(block={"position": "rotary(kind=mixed)"}) | {"input": [64, 96]}
    supernet = Supernet(Space.parse(document, shared_rules())).eval()
    keys = [key for key in supernet._bank if "learned" in key]
    assert len(keys) == 2, "one set of frequencies a block, whatever the input"


def test_relative_bias_equals_timm() -> None:
    torch.manual_seed(0)
    theirs, ours = RelativePositionBias((6, 5), 2), RelativeBias(GRID)
    nn.init.normal_(theirs.relative_position_bias_table)
    table = theirs.relative_position_bias_table.detach().T
    with torch.no_grad():
        ours.table.copy_(table[:, :-3].unflatten(1, (11, 9)))
        ours.from_prefix.copy_(table[:, -3, None, None])
        ours.to_prefix.copy_(table[:, -2, None, None])
        ours.among_prefix.copy_(table[:, -1, None, None])
        assert torch.equal(ours(state(GRID)).bias[0], theirs())


def test_relative_bias_on_a_subset_is_the_gather() -> None:
    torch.manual_seed(0)
    operator, tokens = RelativeBias(GRID), state(GRID)
    index = torch.stack([torch.randperm(30)[:7] for _ in range(2)])
    kept = operator(tokens.select(index, extra=torch.randn(2, 1, 48))).bias
    rows = torch.cat((torch.zeros(2, 1, dtype=torch.long), index + 1), dim=1)
    whole = operator(tokens).bias[0]
    expected = torch.stack([whole[:, at[:, None], at[None, :]] for at in rows])
    assert torch.equal(kept[:, :, :8, :8], expected)
    assert (kept[:, :, 8, 1:] == 0).all() and (kept[:, :, 1:, 8] == 0).all(), "a fused token has no place"


def test_relative_bias_of_a_smaller_grid_is_the_centre_of_the_table() -> None:
    torch.manual_seed(0)
    large, small = (RelativeBias(GRID._replace(height=side, width=side, prefix=0)) for side in (6, 4))
    share = small.share("table")
    with torch.no_grad():
        small.table.copy_(share.crop(large.table, small.table.shape))
    cells = torch.arange(36).unflatten(0, (6, 6))[:4, :4].flatten()
    expected = large(state(GRID._replace(height=6, width=6, tokens=36, prefix=0))).bias[0][:, cells[:, None], cells]
    assert torch.equal(small(state(GRID._replace(height=4, width=4, tokens=16, prefix=0))).bias[0], expected)


def test_every_entry_of_a_relative_bias_learns() -> None:
    torch.manual_seed(0)
    network = Network(only(plain(block={"position": "relative_bias"})))
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for parameter in network.stages[0].blocks[0].position.parameters():
        assert parameter.grad is not None and (parameter.grad != 0).all()


# -- registers and heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [True, False])
def test_registers_equal_timm(rows: bool) -> None:
    torch.manual_seed(0)
    small = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 10}
    theirs = timm.create_model("vit_tiny_patch16_224", reg_tokens=4, no_embed_class=not rows, **small)
    document = plain(registers=4, position="learned" if rows else "learned(prefix=False)")
    ours = Network(only(document), init=False).eval()
    load_timm(ours, stir(theirs).state_dict(), "vit")
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs.eval()(image), atol=1e-5, rtol=1e-5)


def test_registers_nest() -> None:
    torch.manual_seed(0)
    space = Space.parse(plain(registers=[0, 2, 4], position="learned"), shared_rules())
    supernet, chance = Supernet(space).eval(), random.Random(0)
    image, seen = torch.randn(2, 3, 64, 64), set()
    while len(seen) < 3:
        architecture = space.sample(chance)
        count = architecture.stages[0].registers
        seen.add(count)
        network = supernet.bind(architecture)
        if count:
            assert torch.equal(network.stages[0].registers, supernet._bank["stages.0.registers"][:, :count])
        with torch.no_grad():
            assert torch.equal(network(image), supernet.extract(architecture)(image))


def test_ggem_between_mean_and_maximum() -> None:
    torch.manual_seed(0)
    head, tokens = Ggem(GRID, classes=10, groups=4, norm="none"), state(GRID)
    tokens = tokens.replace(x=tokens.x.abs() + 0.5)
    with torch.no_grad():
        head.power.copy_(torch.tensor([1.0, 1.0, 60.0, 60.0]))
        pooled = head(tokens, pre_logits=True)
    torch.testing.assert_close(pooled[:, :24], tokens.patches.mean(dim=1)[:, :24])
    torch.testing.assert_close(pooled[:, 24:], tokens.patches.amax(dim=1)[:, 24:], rtol=0.06, atol=0.0)


def test_distilled_head_is_the_mean_of_both() -> None:
    site = GRID._replace(prefix=2)
    head, tokens = Distilled(site, classes=10).eval(), state(site)
    first, second = head.both(tokens)
    assert torch.equal(head(tokens), (first + second) / 2)
    head.reset(3)
    assert head(tokens).shape == (2, 3)
    head.reset(0)
    torch.testing.assert_close(head(tokens), head(tokens, pre_logits=True))


# -- gated feed-forwards ----------------------------------------------------------------------------------------------


def copied(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    for own, other in names.items():
        ours.get_submodule(own).load_state_dict(theirs.get_submodule(other).state_dict())


def test_geglu_equals_timm() -> None:
    theirs, ours = stir(GeGluMlp(48, 96)), Gated(GRID, activation="gelu", norm="input")
    copied(ours, theirs, {"norm": "norm", "gate": "w0", "up": "w1", "down": "w2"})
    tokens = state(GRID)
    torch.testing.assert_close(ours(tokens.x, tokens), theirs(tokens.x))


@pytest.mark.parametrize("norm", ["none", "hidden"])
def test_swiglu_equals_timm(norm: str) -> None:
    inner = None if norm == "none" else partial(nn.LayerNorm, eps=1e-6)
    theirs, ours = stir(SwiGLU(48, 80, norm_layer=inner)), Gated(GRID, hidden=80, norm=norm)
    copied(ours, theirs, {"gate": "fc1_g", "up": "fc1_x", "down": "fc2"} | ({} if norm == "none" else {"norm": "norm"}))
    tokens = state(GRID)
    torch.testing.assert_close(ours(tokens.x, tokens), theirs(tokens.x))


# -- stems ------------------------------------------------------------------------------------------------------------


def image(side: int) -> Tokens:
    return Tokens.from_map(torch.randn(2, 3, side, side))


def test_hmlp_keeps_patches_independent() -> None:
    torch.manual_seed(0)
    stem = stir(Hmlp(Site(3, 64, 64, 4096), dim=48, norm="layer"))
    tokens = image(64)
    changed = tokens.map_of(tokens.x).clone()
    changed[:, :, 16:32, 32:48] += torch.randn(2, 3, 16, 16)
    difference = (stem(Tokens.from_map(changed)) - stem(tokens)).abs().amax(dim=(0, 2))
    assert (difference > 1e-6).nonzero().flatten().tolist() == [6], "one patch changed, one token changes"


@pytest.mark.parametrize("stem", [Hmlp, StemResnas])
def test_stems_fuse(stem: type[Hmlp] | type[StemResnas]) -> None:
    torch.manual_seed(0)
    plain_stem, tokens = stir(stem(Site(3, 112, 112, 112**2), dim=48)).eval(), image(112)
    fused = copy.deepcopy(plain_stem)
    fused.fuse()
    assert not [m for m in fused.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    torch.testing.assert_close(fused(tokens), plain_stem(tokens), atol=1e-4, rtol=1e-4)


def test_performer_is_attention_with_its_kernel() -> None:
    torch.manual_seed(0)
    thin = Thin(20, 8, "performer")
    nn.init.orthogonal_(thin.features, gain=2.0)
    q, k, v = (torch.randn(2, 9, 8) for _ in range(3))
    features = thin.features

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ features.T + b @ features.T - (a.square().sum() + b.square().sum()) / 2).exp().mean()

    weights = torch.stack([torch.stack([kernel(a, b) for b in k[0]]) for a in q[0]])
    expected = weights / weights.sum(dim=1, keepdim=True) @ v[0]
    torch.testing.assert_close(thin._performer(q, k, v)[0], expected, atol=1e-5, rtol=1e-4)


def test_tokens_to_token_with_softmax_has_its_published_cost() -> None:
    document = load_reference("t2t_vit_14").architecture.to_dict()
    document["stages"][0]["embed"] = "tokens_to_token(kind=transformer)"
    cost = Costs().cost(only(document))
    assert cost.macs == 6_088_721_920, "T2T-ViT_t-14, printed 6.1 G: the authors' code counted"
    assert round(cost.params / 1e6, 1) == 21.5


def test_residual_reduction_without_its_branch_is_pooling() -> None:
    torch.manual_seed(0)
    site = GRID._replace(width=6, tokens=36, prefix=2)
    reduction, tokens = ResidualReduction(site, dim=64), state(site)
    for layer in (reduction.reduce, reduction.widen):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    pooled = F.avg_pool2d(tokens.map_of(tokens.x), 2).flatten(2).transpose(1, 2)
    out = reduction(tokens)
    torch.testing.assert_close(out[..., :48], pooled)
    assert out.shape == (2, 9, 64) and (out[..., 48:] == 0).all()
    prefix = reduction.forward_prefix(tokens.x[:, :2])
    assert torch.equal(prefix[..., :48], tokens.x[:, :2]) and (prefix[..., 48:] == 0).all()
