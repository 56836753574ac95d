"""Legality: each rule broken once by a small file that one change makes legal, and the message that says so."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.spec import Spec
from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import skeleton
from nas.model.spaces import shared_rules
from nas.ops.base import Embed, Mixer, Reduction
from nas.ops.catalogue import catalogue, knob_defaults
from nas.ops.placements import placements

PLAIN = {"mixer": "softmax(heads=2)", "feedforward": "mlp"}
NO_CLASS: dict[str, Any] = {"class_token": False, "head": "mean"}


def file(*blocks: dict[str, Any], head: str = "class_token", then: Any = (), **stage: Any) -> dict[str, Any]:
    """A small network: an 8 x 8 grid of width 32 with a class token, these blocks, and then these stages."""
    first = {
        "embed": "patch(size=4)",
        "dim": 32,
        "class_token": True,
        "blocks": [{**PLAIN, **block} for block in blocks],
    }
    return {"input": stage.pop("input", 32), "classes": 10, "stages": [{**first, **stage}, *then], "head": head}


def later(**keys: Any) -> list[dict[str, Any]]:
    """A second stage, of the same width without an embedding unless told."""
    return [{"embed": "none", "dim": 32, "blocks": [PLAIN], **keys}]


DROP = {"reduction": "evit"}
MERGE = {"reduction": "tome(r=8)"}
EMPTY = {"mixer": "none", "feedforward": "none"}

# What is broken: a file, the place, the message, and the file mended.
BROKEN: dict[str, tuple[dict[str, Any], str, str, dict[str, Any]]] = {
    "grid mixer after tokens are dropped": (
        file(DROP, {"mixer": "window(heads=2)"}),
        "stages[0].blocks[1].mixer",
        "window takes tokens as grid; an earlier reduction leaves a subset: 'window(heads=2)'",
        file({"mixer": "window(heads=2)"}, DROP),
    ),
    "grid feed-forward after tokens are dropped": (
        file({**DROP, "feedforward": "mlp_depthwise"}),
        "stages[0].blocks[0].feedforward",
        "mlp_depthwise takes tokens as grid",
        file({"feedforward": "mlp_depthwise"}, DROP),
    ),
    "grid mixer after tokens are merged once more": (
        file(MERGE, {"reduction": "unmerge", "mixer": "softmax(heads=2)"}, {**MERGE}, {"mixer": "depthwise"}),
        "stages[0].blocks[3].mixer",
        "depthwise takes tokens as grid; an earlier reduction leaves a merged",
        file(MERGE, {"reduction": "unmerge", "mixer": "softmax(heads=2)"}, {"mixer": "depthwise"}),
    ),
    "position after tokens are dropped": (
        file(DROP, {"position": "peg"}),
        "stages[0].blocks[1].position",
        "peg takes tokens as grid",
        file({"position": "peg"}, DROP),
    ),
    "position of a stage after tokens are dropped": (
        file(DROP, then=later(position="learned")),
        "stages[1].position",
        "learned takes tokens as grid",
        file({}, then=later(position="learned")),
    ),
    "embedding after tokens are dropped": (
        file(DROP, then=later(embed="residual_reduction", dim=64)),
        "stages[1].embed",
        "residual_reduction takes tokens as grid",
        file({}, then=later(embed="residual_reduction", dim=64)),
    ),
    "exit after tokens are dropped": (
        file({**DROP, "exit": "convolution"}),
        "stages[0].blocks[0].exit",
        "convolution takes tokens as grid",
        file({"exit": "convolution"}),
    ),
    "reduction of a grid after tokens are merged": (
        file(MERGE, DROP),
        "stages[0].blocks[1].reduction",
        "evit takes tokens as grid or subset; an earlier reduction leaves a merged",
        file(DROP, DROP),
    ),
    "unmerge where nothing is merged": (
        file({"reduction": "unmerge"}),
        "stages[0].blocks[0].reduction",
        "unmerge takes tokens as merged",
        file(MERGE, {"reduction": "unmerge"}),
    ),
    "relative bias over merged tokens": (
        file(MERGE, {"position": "relative_bias"}),
        "stages[0].blocks[1].position",
        "relative_bias takes tokens as grid or subset or units",
        file(MERGE, {"position": "rotary"}),
    ),
    "class token twice": (
        file({}, then=later(class_token=True)),
        "stages[1].class_token",
        "class_token: these tokens join once, and they are here from an earlier stage",
        file({}, class_token=False, then=later(class_token=True)),
    ),
    "registers twice": (
        file({}, registers=4, then=later(registers=2)),
        "stages[1].registers",
        "registers: these tokens join once",
        file({}, then=later(registers=2)),
    ),
    "class token after registers": (
        file({}, registers=4, **NO_CLASS, then=later(class_token=True)),
        "stages[1].class_token",
        "class_token: it joins before distill_token and registers, or with them",
        file({}, registers=4, then=later()),
    ),
    "class token after the distillation token": (
        file({}, distill_token=True, **NO_CLASS, then=later(class_token=True)),
        "stages[1].class_token",
        "class_token: it joins before distill_token and registers, or with them",
        file({}, then=later(distill_token=True)),
    ),
    "a class token where the embedding takes none": (
        file({}, then=later(embed="patch_merging", dim=64)),
        "stages[1].embed",
        "patch_merging takes no prefix tokens (class, distillation, registers), 1 are here",
        file({}, class_token=False, then=later(embed="patch_merging", dim=64, class_token=True)),
    ),
    "mixer's own step and a joint residual": (
        file({"mixer": "rep_depthwise", "residual": "joint"}, **NO_CLASS),
        "stages[0].blocks[0].residual",
        "a joint residual takes a mixer and a feed-forward that are added as residuals",
        file({"mixer": "rep_depthwise"}, **NO_CLASS),
    ),
    "bypassed prefix tokens and a joint residual": (
        file({"mixer": "depthwise", "residual": "joint"}),
        "stages[0].blocks[0].residual",
        "no prefix tokens that bypass the mixer: this block needs split residuals",
        file({"mixer": "depthwise", "residual": "joint"}, **NO_CLASS),
    ),
    "a reduction between mixer and feed-forward that are one": (
        file({**DROP, "residual": "joint"}),
        "stages[0].blocks[0].residual",
        "no reduction between them",
        file({"reduction": "dynamicvit", "residual": "joint"}),
    ),
    "rotary and a mixer that does not read it": (
        file({"position": "rotary", "mixer": "additive"}),
        "stages[0].blocks[0].mixer",
        "rotary supplies rotary, which additive does not read: 'additive'",
        file({"position": "rotary"}),
    ),
    "relative bias and no mixer": (
        file({"position": "relative_bias", "mixer": "none"}),
        "stages[0].blocks[0].mixer",
        "relative_bias supplies bias, which none does not read",
        file({"position": "peg", "mixer": "none"}),
    ),
    "rotary and odd heads": (
        file({"position": "rotary", "mixer": "softmax(heads=2, head_dim=6)"}),
        "stages[0].blocks[0].mixer",
        "rotary: the head dimension 6 is not divisible by 4",
        file({"position": "rotary", "mixer": "softmax(heads=2, head_dim=8)"}),
    ),
    "a table of positions in a block": (
        file({"position": "learned"}),
        "stages[0].blocks[0].position",
        "learned stands at the position of a stage, not of a block",
        file({}, position="learned"),
    ),
    "rotary at a stage": (
        file({}, position="rotary"),
        "stages[0].position",
        "rotary stands at the position of a block, not of a stage",
        file({"position": "rotary"}),
    ),
    "a reduction that reads keys, and a mixer without": (
        file({"mixer": "additive", **MERGE}),
        "stages[0].blocks[0].mixer",
        "tome reads keys, which additive does not leave: 'additive'",
        file({"mixer": "gaussian_mask(heads=2)", **MERGE}),
    ),
    "a reduction that reads keys, and no mixer": (
        file({**EMPTY, **MERGE}),
        "stages[0].blocks[0].mixer",
        "tome reads keys, which none does not leave",
        file({"feedforward": "none", **MERGE}),
    ),
    "a reduction by the class token without one": (
        file({**DROP}, **NO_CLASS),
        "stages[0].blocks[0].reduction",
        "evit reads the class token: set class_token in this stage or before",
        file({**MERGE}, **NO_CLASS),
    ),
    "the previous block's attention in the first block": (
        file({"reduction": "idle"}),
        "stages[0].blocks[0].reduction",
        "idle reads class_attention of the previous block, with the same tokens",
        file({}, {"reduction": "idle"}),
    ),
    "the previous block's attention after a mixer without": (
        file({"mixer": "depthwise"}, {"reduction": "idle"}),
        "stages[0].blocks[1].reduction",
        "idle reads class_attention of the previous block",
        file({"mixer": "depthwise"}, {}, {"reduction": "idle"}),
    ),
    "the previous block's output in the first block": (
        file({"mixer": "skip_attention"}),
        "stages[0].blocks[0].mixer",
        "skip_attention reads output of the previous block's mixer, with the same tokens",
        file({}, {"mixer": "skip_attention"}, {"mixer": "skip_attention"}),
    ),
    "the previous block's output after a mixer without": (
        file({}, {"mixer": "depthwise"}, {"mixer": "skip_attention"}),
        "stages[0].blocks[2].mixer",
        "skip_attention reads output of the previous block's mixer",
        file({"mixer": "depthwise"}, {}, {"mixer": "skip_attention"}),
    ),
    "the previous block's output after a reduction": (
        file({}, MERGE, {"reduction": "unmerge", "mixer": "skip_attention"}),
        "stages[0].blocks[2].mixer",
        "skip_attention reads output of the previous block's mixer, with the same tokens",
        file({}, MERGE, {"reduction": "unmerge"}, {}, {"mixer": "skip_attention"}),
    ),
    "the previous block's output across a stage": (
        file({}, then=later(blocks=[{**PLAIN, "mixer": "skip_attention"}])),
        "stages[1].blocks[0].mixer",
        "skip_attention reads output of the previous block's mixer",
        file({}, then=later(blocks=[PLAIN, {**PLAIN, "mixer": "skip_attention"}])),
    ),
    "scores of the previous block where there are none": (
        file({}, {"mixer": "residual_logits(heads=2, learned=true)"}),
        "stages[0].blocks[1].mixer",
        "residual_logits: learned alpha needs the scores of the previous block",
        file({"mixer": "residual_logits(heads=2)"}, {"mixer": "residual_logits(heads=2, learned=true)"}),
    ),
    "a head of a distillation token that is not there": (
        file({}, head="distilled"),
        "head",
        "distilled reads the distillation token: set distill_token: 'distilled'",
        file({}, head="distilled", distill_token=True),
    ),
    "a head of a class token that is not there": (
        file({}, class_token=False),
        "head",
        "class_token reads the class token: set class_token in this stage or before",
        file({}),
    ),
    "no head": (file({}, head="none"), "head", "a network needs a head: 'none'", file({}, head="mean")),
    "another width without embedding": (
        file({}, then=later(dim=48)),
        "stages[1].embed",
        "a stage without embedding keeps its width: dim is 32, 48 asked: 'none'",
        file({}, then=later()),
    ),
    "another width than the image's without embedding": (
        {"input": 16, "stages": [{"embed": "none", "dim": 4}], "head": "mean"},
        "stages[0].embed",
        "a stage without embedding keeps its width: dim is 3, 4 asked",
        {"input": 16, "stages": [{"embed": "none", "dim": 3}], "head": "mean"},
    ),
    "patches that do not divide the image": (
        file({}, input=34),
        "stages[0].embed",
        "patch: the grid 34x34 is not divisible by size 4",
        file({}, input=36),
    ),
    "a grid too small for its embedding": (
        file({}, **NO_CLASS, then=later(embed="patch(size=4)") + later(embed="stem_shunted")),
        "stages[2].embed",
        "stem_shunted: the grid 2x2 is too small",
        file({}, **NO_CLASS, then=later(embed="patch(size=2)") + later(embed="stem_shunted")),
    ),
    "a window that does not divide": (
        file({"mixer": "mask_unit(unit=3, heads=2)"}),
        "stages[0].blocks[0].mixer",
        "mask_unit: the grid of 8x8 is not divisible by unit 3",
        file({"mixer": "mask_unit(unit=4, heads=2)"}),
    ),
    "a unit that does not divide the units left": (
        file(
            {"reduction": "unit_drop(size=4)", "mixer": "mask_unit(unit=4, heads=2)"},
            {"mixer": "mask_unit(unit=3, heads=2)"},
        ),
        "stages[0].blocks[1].mixer",
        "not divisible by unit 3",
        file(
            {"reduction": "unit_drop(size=4)", "mixer": "mask_unit(unit=4, heads=2)"},
            {"mixer": "mask_unit(unit=2, heads=2)"},
        ),
    ),
    "heads that do not divide": (
        file({"mixer": "softmax(heads=3)"}),
        "stages[0].blocks[0].mixer",
        "3 heads do not divide the width 32; give head_dim, or other heads",
        file({"mixer": "softmax(heads=3, head_dim=16)"}),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_once(name: str) -> None:
    broken, place, message, mended = BROKEN[name]
    with pytest.raises(InputError) as refused:
        Space.parse(broken, shared_rules(), "mine.yaml")
    assert refused.value.place == f"mine.yaml: {place}"
    assert message in str(refused.value)
    network = Space.parse(mended, shared_rules()).only()
    counted = count(skeleton(network), (network.channels, network.input, network.input))
    cost = Costs().cost(network)
    assert (cost.macs, cost.params) == (counted.macs, counted.params)  # it runs


TWO_WORDS: dict[str, tuple[tuple[str, str, str], tuple[str, ...], dict[str, Any], str]] = {
    "read by a reduction of its mixer": (
        ("reduction", "tome", "reads"),
        ("queries", "keys"),
        file({"mixer": "additive", **MERGE}),
        "tome reads keys and queries, which additive does not leave",
    ),
    "read by a reduction of the block before": (
        ("reduction", "idle", "reads_previous"),
        ("output", "keys"),
        file({"reduction": "idle"}),
        "idle reads keys and output of the previous block, with",
    ),
    "read by a mixer of the block before": (
        ("mixer", "skip_attention", "reads_previous"),
        ("output", "keys"),
        file({"mixer": "skip_attention"}),
        "skip_attention reads keys and output of the previous block's mixer, with",
    ),
    "supplied by a position": (
        ("position", "rotary", "supplies"),
        ("rotary", "bias"),
        file({"position": "rotary", "mixer": "additive"}),
        "rotary supplies bias and rotary, which additive does not read",
    ),
    "one layout of several": (
        ("mixer", "window", "takes"),
        ("units", "grid"),
        file(DROP, {"mixer": "window(heads=2)"}),
        "window takes tokens as grid or units; an earlier",
    ),
    "one place of several": (
        ("position", "learned", "stands"),
        ("stage", "elsewhere"),
        file({"position": "learned"}),
        "learned stands at the position of a elsewhere or stage, not of a block",
    ),
}


@pytest.mark.parametrize("name", TWO_WORDS)
def test_what_is_needed_together_and_what_is_a_choice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All words that an operator reads or supplies are needed (and); of layouts and places, one is enough (or)."""
    (kind, operator, attribute), words, document, message = TWO_WORDS[name]
    monkeypatch.setattr(catalogue().get(kind, operator), attribute, frozenset(words))
    assert message in refusal(document)


def refusal(document: dict[str, Any]) -> str:
    """The message, or nothing for a legal file."""
    try:
        Space.parse(document, shared_rules())
    except InputError as error:
        return str(error)
    return ""


def names(kind: str) -> list[str]:
    return catalogue().names(kind)


@pytest.mark.parametrize("name", names("embed"))
def test_only_stems_stand_on_the_image(name: str) -> None:
    cls = catalogue().get("embed", name)
    assert issubclass(cls, Embed)
    said = refusal({"input": 224, "stages": [{"embed": name, "dim": 96}], "head": "mean"})
    assert (f"{name} stands between stages, not on the image" in said) == (not cls.stem), said
    pixels = {"embed": "none", "dim": 3}  # a stage without embedding leaves the image as it is
    said = refusal({"input": 224, "stages": [pixels, {"embed": name, "dim": 96}], "head": "mean"})
    assert ("stands between stages, not on the image" in said) == (not cls.stem), said


@pytest.mark.parametrize(
    "layout, before", [("subset", DROP), ("merged", MERGE), ("units", {"reduction": "unit_drop(size=4)"})]
)
def test_what_a_class_takes_is_what_its_file_may_have(layout: str, before: dict[str, Any]) -> None:
    """Every mixer and feed-forward after a reduction; other rules may still refuse those that take the layout."""
    for kind in ("mixer", "feedforward"):
        for name in names(kind):
            said = refusal(file({}, before, {kind: name}, dim=48))
            refused = f"{name} takes tokens as " in said and f"leaves a {layout}" in said
            assert refused == (layout not in catalogue().get(kind, name).takes), (name, said)


@pytest.mark.parametrize("name", names("mixer"))
def test_every_reduction_finds_what_it_reads(name: str) -> None:
    cls = catalogue().get("mixer", name)
    assert issubclass(cls, Mixer)
    for reduction in names("reduction"):
        reads = catalogue().get("reduction", reduction)
        assert issubclass(reads, Reduction)
        said = refusal(file({}, {"reduction": reduction, "mixer": name}, dim=48))
        if f"{reduction} reads" in said:
            assert not reads.reads <= cls.emits
        elif not said:
            assert reads.reads <= cls.emits


def test_a_default_spelt_out_is_left_out() -> None:
    """So that equal networks are equal, for every knob of every operator; a whole number counts as a number."""
    for kind, name, cls in catalogue().every():
        for knob, default in knob_defaults(cls).items():
            if default is inspect.Parameter.empty:
                continue
            texts = [str(Spec(name, **{knob: default}))]
            if isinstance(default, float) and default.is_integer():
                texts.append(f"{name}({knob}={int(default)})")
            for text in texts:
                assert catalogue().specs(kind, text, "here") == [Spec(name)], text


def test_joining_tokens_are_placed_in_one_order_in_every_process() -> None:
    """A supernet draws its first weights in this order; a set of words has another in each process."""
    space = Space.parse(file({}, distill_token=True, registers=4), shared_rules())
    joining = [
        placed.kind for _, placed in placements(space, catalogue()) if placed.kind.endswith(("token", "registers"))
    ]
    assert joining == ["class_token", "distill_token", "registers"]


def test_knobs_of_a_reduction_leave_one_form() -> None:
    """Counting a space does not grow with the knobs of what is done by then."""
    few = Space.parse(file({"reduction": "evit(keep=[0.5])"}, {}), shared_rules())
    many = Space.parse(file({"reduction": "evit(keep=[0.5, 0.6, 0.7, 0.8, 0.9])"}, {}), shared_rules())
    assert many.size == 5 * few.size
    assert len(many.automaton._counts) == len(few.automaton._counts)


@pytest.mark.parametrize(
    "one, other",
    [
        ({"mixer": "depthwise", "feedforward": "none", "norm": "batch"}, {"mixer": "depthwise", "feedforward": "none"}),
        ({"mixer": "none", "residual": "joint"}, {"mixer": "none"}),
        (
            {"mixer": "rep_depthwise", "feedforward": "none", "layer_scale": 0.1},
            {"mixer": "rep_depthwise", "feedforward": "none"},
        ),
        ({"position": "rotary(theta=100.0)"}, {"position": "rotary"}),
        ({"feedforward": "mlp(hidden=100, ratio=3)"}, {"feedforward": "mlp(hidden=100)"}),
        ({"mixer": "cells(attention=separable, heads=2)"}, {"mixer": "cells(attention=separable)"}),
        ({"mixer": "softmax(heads=2)"}, {"mixer": "softmax(heads=2, qkv_bias=true, temperature=1)"}),
    ],
)
def test_choices_without_effect_are_dropped(one: dict[str, str], other: dict[str, str]) -> None:
    first, second = (Space.parse(file(block, **NO_CLASS), shared_rules()).only() for block in (one, other))
    assert first == second and first.digest == second.digest


def test_choices_without_effect_are_counted_once() -> None:
    block = {"mixer": "depthwise", "feedforward": "none", "norm": ["layer", "batch"], "residual": ["split", "joint"]}
    assert Space.parse(file(block, **NO_CLASS), shared_rules()).size == 1
