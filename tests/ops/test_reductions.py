"""Token reductions and exits: what the contract does not reach.

Masks in training and gathers in inference agree, nothing is lost that should come back, counts are those of the papers'
own code, and exits obey their thresholds.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.network import Network
from nas.model.reference import load_reference, timm_twin
from nas.ops.catalogue import catalogue
from nas.ops.rules import OperatorRules
from nas.ops.site import Site
from nas.ops.tokens import Tokens

RULES = OperatorRules()
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def architecture(*blocks: dict[str, Any] | str, head: str = "class_token") -> Architecture:
    """A small network of these blocks (a string is its reduction) on an 8 x 8 grid with a class token."""
    plain = {"mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=2)"}
    listed = [{**plain, **({"reduction": b} if isinstance(b, str) else b)} for b in blocks]
    first = {"embed": "patch(size=4)", "dim": 32, "class_token": True, "position": "learned", "blocks": listed}
    return Space.parse({"input": 32, "classes": 10, "stages": [first], "head": head}, RULES).only()


def made(*blocks: dict[str, Any] | str, **keys: Any) -> Network:
    """Such a network with weights far from trivial."""
    torch.manual_seed(0)
    network = Network(architecture(*blocks, **keys)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def image(batch: int = 2, side: int = 32) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def same_weights(network: Network, other: Network) -> Network:
    other.load_state_dict(network.state_dict())
    return other.eval()


# -- masks and gathers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["class_token", "mean"])
@pytest.mark.parametrize("position", ["none", "rotary", "relative_bias"])
def test_dynamicvit_masks_as_it_gathers(monkeypatch: pytest.MonkeyPatch, position: str, head: str) -> None:
    """Given the choice of inference, training gives the same logits: dropped tokens reach nobody."""
    scored = {"position": position}
    once, twice = ({"reduction": f"dynamicvit(keep={keep})", **scored} for keep in (0.6, 0.3))
    network = made(scored, once, scored, twice, head=head)
    left = iter([int(0.6 * 64), int(0.3 * 64)])
    dropped = torch.zeros(2, 64, dtype=torch.bool)

    def choice(scores: Tensor, hard: bool) -> Tensor:
        assert hard
        kept = scores[:, :, 0].masked_fill(dropped, -torch.inf).topk(next(left), dim=1).indices
        dropped.fill_(True).scatter_(1, kept, False)
        return torch.stack((~dropped, dropped), dim=-1).float()

    with torch.no_grad():
        gathered = network.forward_tokens(image())
        expected = network(image())
        monkeypatch.setattr(F, "gumbel_softmax", choice)
        network.train()
        masked = network.forward_tokens(image())
        left = iter([int(0.6 * 64), int(0.3 * 64)])
        dropped.fill_(False)
        torch.testing.assert_close(network(image()), expected, **CLOSE)
    assert masked.mask is not None and gathered.index is not None and gathered.count == 19
    torch.testing.assert_close(masked.select(gathered.index).patches, gathered.patches, **CLOSE)
    assert masked.mask.gather(1, gathered.index).min() == 1 and masked.mask.sum() == 2 * 19
    shares = [(share.tolist(), keep) for share, keep in masked.running["kept"]]
    assert shares == [([38 / 64] * 2, 0.6), ([19 / 64] * 2, 0.3)]


def test_dynamicvit_learns_what_to_keep() -> None:
    """The straight-through choice carries a gradient to the scores."""
    network = made({}, "dynamicvit(keep=0.5)", {}).train()
    network(image()).square().sum().backward()
    assert network.stages[0].blocks[1].reduction.score.weight.grad.abs().sum() > 0
    other = made({}, "dynamicvit(keep=0.5)", "evit(keep=0.5)", "supervit(keep=0.5)", "dynamicvit(keep=0.1)").train()
    other(image()).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in other.parameters() if p.grad is not None)


@pytest.mark.parametrize("position", ["none", "rotary(kind=mixed)", "relative_bias"])
def test_a_masked_block_is_a_gathered_block(position: str) -> None:
    """Whatever a reduction keeps: attention with masked keys equals attention among the tokens that are left."""
    network = made({"position": position}, {"position": position})
    index = torch.rand(2, 64).argsort(dim=1)[:, :30]
    with torch.no_grad():
        tokens = network.stages[0].enter(Tokens.from_map(image()))
        mask = torch.zeros(2, 64).scatter(1, index, 1.0)
        masked, gathered = tokens.replace(mask=mask), tokens.select(index)
        for block in network.stages[0].blocks:
            masked, gathered = block(masked), block(gathered)
    torch.testing.assert_close(masked.select(index).x, gathered.x, **CLOSE)


@pytest.mark.parametrize(
    "reduction", ["evit(keep=0.5)", "supervit(keep=0.5)", "evo", "evo(update=residual)", "idle(keep=0.5)", "tome(r=9)"]
)
def test_gathers_in_training_too(reduction: str) -> None:
    network = made({}, reduction, {})
    with torch.no_grad():
        assert torch.equal(network(image()), network.train()(image()))


def test_kept_tokens_do_not_feel_the_dropped_ones() -> None:
    """EViT without fusion and SuperViT: the masked form of their own choice gives the same kept tokens."""
    for reduction in ("evit(keep=0.4, fuse=False)", "supervit(keep=0.4)"):
        network = made(reduction, {}, {})
        with torch.no_grad():
            stage = network.stages[0]
            gathered = stage.blocks[0](stage.enter(Tokens.from_map(image())))
            plain = same_weights(network, made({}, {}, {}))
            whole = plain.stages[0].blocks[0](plain.stages[0].enter(Tokens.from_map(image())))
            mask = torch.zeros(2, 64).scatter(1, gathered.index, 1.0)
            masked = whole.replace(mask=mask)
            for i in (1, 2):
                masked, gathered = stage.blocks[i](masked), stage.blocks[i](gathered)
        torch.testing.assert_close(masked.select(gathered.index).patches, gathered.patches, **CLOSE)
        torch.testing.assert_close(masked.x[:, 0], gathered.x[:, 0], **CLOSE)


def test_keeping_all_changes_nothing() -> None:
    plain = made({}, {}, {})
    for reduction in (
        "tome(r=0)",
        *(f"{name}(keep=1.0)" for name in ("evit", "supervit", "evo", "idle", "dynamicvit")),
    ):
        reduced = same_weights(plain, made({}, reduction, {}))
        with torch.no_grad():
            torch.testing.assert_close(reduced(image()), plain(image()), atol=1e-6, rtol=1e-5)


def test_select_carries_everything() -> None:
    x = torch.randn(2, 3 + 6, 4)
    tokens = Tokens(x, 2, 3, 3, index=torch.arange(6).expand(2, -1) + 10, size=torch.arange(12.0).reshape(2, 6) + 1)
    tokens = tokens.replace(mask=torch.ones(2, 6), cover=torch.zeros(2, 6, dtype=torch.long))
    tokens = tokens.replace(bias=torch.randn(1, 2, 9, 9), rotary=(torch.randn(1, 1, 6, 4), torch.randn(2, 2, 6, 4)))
    index = torch.tensor([[5, 0], [1, 2]])
    chosen = tokens.select(index, extra=torch.zeros(2, 1, 4), positions=True)
    assert chosen.index.tolist() == [[15, 10, -1], [11, 12, -1]] and chosen.cover is None and chosen.layout == "subset"
    assert chosen.size.tolist() == [[6, 1, 1], [8, 9, 1]] and chosen.mask.shape == (2, 3)
    assert torch.equal(chosen.patches[1, 0], tokens.patches[1, 1]) and torch.equal(chosen.x[:, :3], x[:, :3])
    assert chosen.bias.shape == (2, 2, 6, 6) and chosen.bias[0, 1, 3, 4] == tokens.bias[0, 1, 3 + 5, 3 + 0]
    assert chosen.bias[:, :, 5].abs().sum() == 0 and chosen.rotary[0].shape == (2, 1, 3, 4)
    assert torch.equal(chosen.rotary[1][1, 0, 0], tokens.rotary[1][1, 0, 1])
    assert chosen.rotary[0][0, 0, 2].tolist() == [1] * 4 and chosen.rotary[1][0, 0, 2].tolist() == [0] * 4
    assert tokens.select(index).bias is None and tokens.select(index).rotary is None


# -- what comes back --------------------------------------------------------------------------------------------------


def test_idle_tokens_are_the_same_to_the_bit() -> None:
    network = made({}, "idle(keep=0.5)", "idle(keep=0.5)")
    first, second, third = network.stages[0].blocks
    with torch.no_grad():
        tokens = first(network.stages[0].enter(Tokens.from_map(image())))
        for block in (second, third):
            after = block(tokens)
            idle = (after.patches == tokens.patches).all(dim=2)
            assert after.layout == "grid" and after.index is None and idle.sum(dim=1).tolist() == [32, 32]
            scores = after.running["class_attention"]
            had = tokens.running.get("class_attention", scores)
            assert torch.allclose(scores.sum(dim=1), had.sum(dim=1), atol=1e-5)
            tokens = after


def test_evo_keeps_its_order_within_a_stage() -> None:
    network = made({}, "evo(keep=0.5)", "evo(keep=0.25, rank=False)", "evo(keep=0.5)")
    tokens, still = network.stages[0].enter(Tokens.from_map(image())), []
    with torch.no_grad():
        for block in network.stages[0].blocks:
            after = block(tokens)
            still.append((after.patches == tokens.patches).all(dim=2))
            tokens = after
    assert [s.sum().item() for s in still] == [0, 2 * 32, 2 * 48, 2 * 32]
    assert (still[1] & still[2]).sum() == still[1].sum(), "the slow tokens are among those of the block before"
    assert (still[1] != still[3]).any(), "ranked anew"


def test_evo_gives_fast_tokens_the_change_of_their_mean() -> None:
    network = made({}, "evo(keep=0.5, update=residual)")
    stage = network.stages[0]
    with torch.no_grad():
        tokens = stage.blocks[0](stage.enter(Tokens.from_map(image())))
        after = stage.blocks[1](tokens)
        slow = stage.blocks[1].reduction(tokens).index
        assert slow.shape == (2, 33) and slow[:, -1].tolist() == [-1, -1]
        change = after.patches - tokens.patches
    fast = torch.ones(2, 64, dtype=torch.bool).scatter(1, slow[:, :-1], False)
    for sample in range(2):
        moved = change[sample][fast[sample]]
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), **CLOSE)
        assert moved.abs().max() > 1e-3


def test_merge_and_unmerge() -> None:
    network = made("tome(r=20)", "tome(r=20)", "tome(r=20)", {"reduction": "unmerge"})
    stage = network.stages[0]
    with torch.no_grad():
        tokens = stage.enter(Tokens.from_map(image()))
        for block, left in zip(stage.blocks, (44, 24, 12, 64), strict=True):
            tokens, before = block(tokens), tokens
            assert tokens.count == left
            if left < 64:
                counted = torch.stack([row.bincount(minlength=left) for row in tokens.cover])
                assert torch.equal(counted.float(), tokens.size), "a token's size is the count of its cells"
        grid = stage.blocks[-1].reduction(before)
    assert tokens.layout == grid.layout == "grid" and tokens.size is None and tokens.index is None
    for sample in range(2):
        assert torch.equal(grid.patches[sample], before.patches[sample, before.cover[sample]])
    assert torch.equal(grid.x[:, 0], before.x[:, 0])
    nothing = same_weights(made({}, {}), made("tome(r=0)", "unmerge"))
    with torch.no_grad():
        assert torch.equal(nothing(image()), made({}, {})(image()))


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_a_merged_token_is_the_mean_of_its_cells(prefix: int) -> None:
    """Twice in a row, so that means of means are weighted; and half of the tokens merge at most."""
    cells = torch.randn(2, prefix + 25, 8)
    tokens = Tokens(cells, 5, 5, prefix)
    for left in (25 - 9, 8):
        site = Site(8, 5, 5, tokens.count, prefix, heads=2, head_dim=4)
        merge = catalogue().get("reduction", "tome")(site, r=9 if left == 16 else 100)
        keys = torch.randn(2, 2, prefix + tokens.count, 4)
        tokens = merge(tokens.replace(carry={"keys": keys}))
        assert tokens.count == left
    for sample in range(2):
        for token in range(tokens.count):
            own = cells[sample, prefix:][tokens.cover[sample] == token]
            torch.testing.assert_close(tokens.patches[sample, token], own.mean(dim=0), **CLOSE)
    assert torch.equal(tokens.x[:, :prefix], cells[:, :prefix])


def test_proportional_attention_counts_cells() -> None:
    """A token of size two weighs as two equal tokens; without `proportional`, as one."""
    network = made({})
    x = torch.randn(1, 1 + 3, 32)
    sizes = torch.tensor([[1.0, 2.0, 1.0]])
    doubled = x[:, [0, 1, 2, 2, 3]]
    with torch.no_grad():
        block = network.stages[0].blocks[0]
        merged = block(Tokens(x, 2, 2, 1, layout="merged", size=sizes))
        twice = block(Tokens(doubled, 2, 2, 1))
        plain = block(Tokens(x, 2, 2, 1, layout="merged", size=sizes, proportional=False))
        torch.testing.assert_close(merged.x, twice.x[:, [0, 1, 2, 4]], **CLOSE)
        torch.testing.assert_close(plain.x, block(Tokens(x, 2, 2, 1)).x, **CLOSE)


def test_unit_drop() -> None:
    network = made("unit_drop(keep=0.25, size=2)", {})
    reduction, stage = network.stages[0].blocks[0].reduction, network.stages[0]
    with torch.no_grad():
        tokens = stage.enter(Tokens.from_map(image()))
        kept, again = reduction(tokens), reduction(tokens)
        drawn = [reduction.train()(tokens) for _ in range(3)]
    assert torch.equal(kept.index, again.index) and torch.equal(kept.index[0], kept.index[1]) and kept.layout == "units"
    assert any(not torch.equal(d.index, kept.index) for d in drawn)
    for state in (kept, *drawn):
        units = state.index.unflatten(1, (4, 4))
        whole_units = torch.tensor([0, 1, 8, 9]).expand(2, 4, 4)  # row by row on an 8 x 8 grid
        assert torch.equal(units - units[:, :, :1], whole_units)
        assert torch.equal(state.patches[0], tokens.patches[0, state.index[0]])
    whole = same_weights(made({}), made("unit_drop(keep=1.0, size=4)"))
    with torch.no_grad():
        torch.testing.assert_close(whole(image()), made({})(image()), **CLOSE)


# -- legality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blocks, reason",
    [
        (("tome(r=8)", "evit(keep=0.5)"), "takes tokens as grid or subset"),
        (("idle(keep=0.5)",), "class_attention of the previous block"),
        (({}, "evit(keep=0.5)", "idle(keep=0.5)"), "class_attention of the previous block|takes tokens as grid"),
        (({}, "evo(rank=False)"), "keeps the order of evo"),
        (({}, "evo", {}, "evo(rank=False)"), "keeps the order of evo"),
        (("tome(r=8)", {"position": "peg"}), "takes tokens as grid"),
        (("unmerge",), "takes tokens as merged"),
        (({"reduction": "evit(keep=0.5)", "residual": "joint"},), "split residuals"),
    ],
)
def test_illegal(blocks: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        architecture(*blocks)


def test_legal() -> None:
    architecture({}, "evo", {}, "evo", "evo(rank=False)", "idle(keep=0.5)", {})
    architecture("tome(r=8)", "unmerge", {"position": "peg"})
    architecture("unit_drop(size=2)", {})
    made({}, "evo", {}, "evo", "idle(keep=0.5)", {}, "idle(keep=0.5)")(image())


# -- counts -----------------------------------------------------------------------------------------------------------

DEIT = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12)}


def deit(size: str, reductions: list[str | None], head: str = "class_token", side: int = 224) -> Cost:
    dim, heads = DEIT[size]
    block = {"mixer": f"softmax(heads={heads})", "feedforward": "mlp(ratio=4)"}
    blocks = [block if r is None else {**block, "reduction": r} for r in reductions]
    stage = {"embed": "patch(size=16)", "dim": dim, "class_token": True, "position": "learned", "blocks": blocks}
    return Costs().cost(Space.parse({"input": side, "stages": [stage], "head": head}, RULES).only())


def closed(size: str, tokens: list[tuple[int, int]]) -> int:
    """The closed form: rows at attention and at the feed-forward of each block."""
    dim = DEIT[size][0]
    blocks = sum(4 * a * dim**2 + 2 * a * a * dim + 8 * b * dim**2 for a, b in tokens)
    return 196 * 768 * dim + 1000 * dim + blocks


def thrice(*specs: str) -> list[str | None]:
    """Reductions in blocks 3, 6 and 9 of 12."""
    return [specs[i // 3 - 1] if i in (3, 6, 9) else None for i in range(12)]


# GMACs for Ti, S and B: the authors' code counted (S), the closed forms of it (Ti, B)
EVIT = {
    0.9: (1.092, 4.022, 15.395),
    0.8: (0.942, 3.477, 13.327),
    0.7: (0.821, 3.029, 11.610),
    0.6: (0.715, 2.635, 10.088),
    0.5: (0.629, 2.309, 8.820),
}
UNFUSED = {0.9: 3.988, 0.8: 3.444, 0.7: 2.997, 0.6: 2.608, 0.5: 2.282}
RHO = {
    0.9: (1.091, 4.041, 15.512),
    0.8: (0.932, 3.463, 13.323),
    0.7: (0.801, 2.981, 11.476),
    0.6: (0.690, 2.565, 9.868),
    0.5: (0.602, 2.229, 8.561),
}
TOME = {
    4: (1.086, 4.001, 15.321),
    8: (0.924, 3.416, 13.104),
    10: (0.846, 3.129, 12.004),
    13: (0.731, 2.703, 10.367),
    16: (0.622, 2.291, 8.772),
}


@pytest.mark.parametrize("keep", EVIT)
def test_evit_counts(keep: float) -> None:
    """The closed form to the digit, and the authors' code counted, at three digits."""
    for size, figure in zip(DEIT, EVIT[keep], strict=True):
        n, rows, fused = 197, [], 0
        for i in range(12):
            a = n
            if i in (3, 6, 9):
                fused += (n - 1) * DEIT[size][0]
                n = 1 + math.ceil(keep * (n - 1)) + 1
            rows.append((a, n))
        macs = deit(size, thrice(*[f"evit(keep={keep})"] * 3)).macs
        assert macs - fused == closed(size, rows)
        assert abs(macs / 1e9 - figure) < 1e-3
    assert abs(deit("S", thrice(*[f"evit(keep={keep}, fuse=False)"] * 3)).macs / 1e9 - UNFUSED[keep]) < 6e-4


@pytest.mark.parametrize("rho", RHO)
def test_dynamicvit_counts(rho: float) -> None:
    shares = [rho, rho**2, rho**3]
    for size, figure in zip(DEIT, RHO[rho], strict=True):
        dim, n, rows, scored = DEIT[size][0], 197, [], 0
        for i in range(12):
            if i in (3, 6, 9):
                scored += (n - 1) * (dim**2 + dim**2 // 2 + dim**2 // 8 + dim // 2)
                n = 1 + int(196 * shares[i // 3 - 1])
            rows.append((n, n))
        macs = deit(size, thrice(*[f"dynamicvit(keep={share})" for share in shares])).macs
        assert macs - scored == closed(size, rows)
        assert abs(macs / 1e9 - figure) < 6e-4
    assert abs(deit("S", thrice(*[f"dynamicvit(keep={share})" for share in shares])).params / 1e6 - 22.774) < 6e-4


@pytest.mark.parametrize("r", TOME)
def test_tome_counts(r: int) -> None:
    """The closed form leaves the matching out; the authors' code with it: 3.421, 2.706, 2.294 at r = 8, 13, 16."""
    for size, figure in zip(DEIT, TOME[r], strict=True):
        n, rows, matched = 197, [], 0
        for _ in range(12):
            a, n = n, n - min(r, (n - 1) // 2)
            rows.append((a, n))
            matched += ((a + 1) // 2 - 1) * (a // 2) * 64
        macs = deit(size, [f"tome(r={r})"] * 12).macs
        assert macs - matched == closed(size, rows)
        assert abs((macs - matched) / 1e9 - figure) < 6e-4
    measured = {8: 3.421, 13: 2.706, 16: 2.294}
    if r in measured:
        assert abs(deit("S", [f"tome(r={r})"] * 12).macs / 1e9 - measured[r]) < 6e-4


def test_evo_counts() -> None:
    blocks = [None] * 4 + ["evo", *["evo(rank=False)"] * 3] * 2
    for size, figure in zip(DEIT, (0.818, 3.033, 11.658), strict=True):
        macs = deit(size, blocks, head="mean").macs  # type: ignore[arg-type]
        assert macs == closed(size, [(197, 197)] * 4 + [(99, 99)] * 8) and abs(macs / 1e9 - figure) < 6e-4


def test_supervit_counts() -> None:
    """The twelve networks of the paper: four input sizes, three keep ratios."""
    figures = ((0.742, 0.972, 1.438), (1.155, 1.515, 2.268), (1.668, 2.194, 3.315), (2.298, 3.013, 4.599))
    for side, row in zip((128, 160, 192, 224), figures, strict=True):
        for keep, figure in zip((0.5, 0.7, 1.0), row, strict=True):
            assert abs(deit("S", thrice(*[f"supervit(keep={keep})"] * 3), side=side).macs / 1e9 - figure) < 6e-4


def test_evit_that_keeps_all_equals_timm() -> None:
    ours, theirs = timm_twin(load_reference("deit_tiny"))
    stage = load_reference("deit_tiny").architecture.to_dict()["stages"][0]
    stage["blocks"] = [{**block, "repeat": 1, "reduction": "evit(keep=1.0)"} for block in stage["blocks"]] * 12
    kept = Network(Space.parse({"stages": [stage], "head": "class_token"}, RULES).only(), init=False).eval()
    kept.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(kept(image(1, 224)), theirs(image(1, 224)), atol=1e-5, rtol=1e-5)


# -- exits ------------------------------------------------------------------------------------------------------------


def exiting(threshold: float) -> Network:
    exits = ("linear", "convolution", "attention")
    return made(*[{"exit": f"{name}(threshold={threshold})"} for name in exits], {})


def test_threshold_zero_takes_the_first_exit() -> None:
    network = exiting(0.0)
    with torch.no_grad():
        (first, *_), logits = network.forward_exits(image(8)), network(image(8))
    assert torch.equal(logits, first[1])


def test_threshold_above_one_is_not_legal() -> None:
    for name in ("linear", "convolution", "attention"):
        with pytest.raises(InputError, match="threshold is a number from 0 to 1"):
            architecture({"exit": f"{name}(threshold=1.01)"})


def test_early_exits_fall_with_the_threshold() -> None:
    """The share of samples that leave early, and the one that leaves at each exit or before."""
    pictures, shares = image(64), []
    with torch.no_grad():
        found = torch.cat([early.softmax(dim=1).amax(dim=1) for _, early in exiting(0.5).forward_exits(pictures)[:-1]])
    between = [found.quantile(share).item() for share in (0.2, 0.4, 0.6, 0.8)]
    for threshold in (0.0, *between, 1.0):
        network = exiting(threshold)
        with torch.no_grad():
            *exits, (_, last) = network.forward_exits(pictures)
            logits = network(pictures)
            sure = torch.stack([early.softmax(dim=1).amax(dim=1) >= threshold for _, early in exits])
            left = sure.cumsum(dim=0) > 0
            assert torch.equal(logits[~left[-1]], last[~left[-1]])
        shares.append(left.float().mean(dim=1))
    assert shares[0].tolist() == [1, 1, 1] and shares[-1][-1] < 1
    for more, fewer in itertools.pairwise(shares):
        assert (fewer <= more).all()
    assert len({tuple(share.tolist()) for share in shares}) > 3, "thresholds matter"
