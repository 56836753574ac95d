"""Features: what a network is made of, as numbers that a regression can use.

All are physical: counts, shares and shapes that follow from the costs of its parts and from what the classes of its
operators declare, so that a new operator file needs no change here. Three groups of columns, in this order:

size         logarithms of parameters, MACs, depth, width, working set, tokens
kind         shares (of MACs or of blocks), where tokens go, and flags, each about 0..1
operators    for each operator of the catalogue the share of the network's blocks (or stages) that have it

How a block mixes tokens is told by its cost: transforms make it `spectral`; products of activations make it attention,
`global` as far as each token reads all the others, else `local`; without either it is `static` where it needs the whole
grid (convolutions, graphs, linear layers across tokens), else `linear` (one query for all, separable).
Costs come with the features, from the same walk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.cost import Cost
from nas.core.spec import Spec
from nas.model.costs import Costs
from nas.model.plan import input_site, reduced_sites, stage_site
from nas.ops.catalogue import Catalogue, catalogue, knob_defaults
from nas.ops.site import GRID, Site

SIZE = ("log_params", "log_whole_macs", "log_depth", "log_width", "log_tokens", "log_input")
MIXING = ("global", "local", "static", "spectral", "linear")
KIND = (
    *MIXING,
    "unmixed",  # share of blocks without a mixer
    "attention_share",  # of MACs: products of activations
    "mixer_share",  # of MACs
    "feedforward_share",
    "embed_share",
    "grid_feedforward",  # share of blocks whose feed-forward needs the grid
    "log_spared",  # logarithm of the MACs that are left of those of all tokens
    "last_kept",  # share of the grid's tokens at the end
    "pyramid",  # halvings of the grid's side after the first embedding
    "class_token",
    "block_position",  # share of blocks
    "stage_position",  # share of stages
    "layer_scale",  # share of blocks
)
COLUMNED = ("embed", "position", "mixer", "feedforward", "reduction", "head")


class Described(NamedTuple):
    """Networks as numbers: a row each, and their costs."""

    rows: np.ndarray  # (networks, columns), float64
    costs: list[Cost]


AT = {name: number for number, name in enumerate((*SIZE, *KIND))}
WIDTH, TOKENS = AT["log_width"], AT["log_tokens"]
GLOBAL, LOCAL, STATIC, SPECTRAL, LINEAR, UNMIXED = (AT[name] for name in (*MIXING, "unmixed"))
OF_MIXERS, OF_FEEDFORWARDS, OF_EMBEDS = AT["mixer_share"], AT["feedforward_share"], AT["embed_share"]
ON_GRID, POSITION, SCALE = (AT[name] for name in ("grid_feedforward", "block_position", "layer_scale"))
DEPTH, WHOLE = AT["log_depth"], AT["log_whole_macs"]


class Features:
    """The features of networks over one catalogue. What an operator is and where tokens go is looked up once."""

    def __init__(self, operators: Catalogue | None = None, costs: Costs | None = None):
        self.operators = operators or catalogue()
        self.costs = costs or Costs(self.operators)
        found = [(kind, name) for kind in COLUMNED for name in self.operators.names(kind)]
        self.names = (*SIZE, *KIND, *(f"{kind}:{name}" for kind, name in found))
        self.groups = (slice(0, len(SIZE)), slice(len(SIZE), len(SIZE) + len(KIND)), slice(len(SIZE) + len(KIND), None))
        first = len(SIZE) + len(KIND)
        self._columns = {key: first + number for number, key in enumerate(found)}
        self._kept: dict[Any, Any] = {}
        self._mixers: dict[Spec, tuple[int, int, bool, bool]] = {}
        self._feedforwards: dict[Spec, tuple[int, bool]] = {}

    def of(self, architecture: Architecture) -> np.ndarray:
        """One row."""
        return self.describe([architecture]).rows[0]

    def describe(self, architectures: Sequence[Architecture]) -> Described:
        """A row and the cost of each network."""
        rows = np.zeros((len(architectures), len(self.names)))
        costs = []
        for number, architecture in enumerate(architectures):
            row, cost = self._row(architecture)
            rows[number] = row
            costs.append(cost)
        return Described(rows, costs)

    def _row(self, architecture: Architecture) -> tuple[list[float], Cost]:
        parts = self.costs.parts(architecture)
        row = [0.0] * len(self.names)
        site, at, first = input_site(architecture), 0, 0
        stages, count = architecture.stages, sum([len(stage.blocks) for stage in architecture.stages])
        share = 1.0 / max(1, count)
        for stage in stages:
            row[OF_EMBEDS] += parts[at].macs
            site = self._enter(stage, site)
            first = first or site.height
            for kind, spec in (("embed", stage.embed), ("position", stage.position)):
                if spec is not NONE:
                    row[self._column(kind, spec)] += 1.0 / len(stages)
            row[AT["class_token"]] = max(row[AT["class_token"]], float(stage.class_token))
            row[AT["stage_position"]] += (stage.position is not NONE) / len(stages)
            at += 1
            for block in stage.blocks:
                at, site = self._block(block, site, parts, at, row, share)
            at += 1  # the closing norm
        row[self._column("head", architecture.head)] = 1.0
        total = self._total(parts)
        macs = max(1, total.macs)
        whole = max(1.0, macs - row[OF_MIXERS] - row[OF_FEEDFORWARDS] + row[WHOLE])
        for number in (OF_MIXERS, OF_FEEDFORWARDS, OF_EMBEDS):
            row[number] /= macs
        row[AT["log_params"]] = math.log(max(1, total.params))
        row[WHOLE] = math.log(whole)
        row[DEPTH] = math.log(max(1.0, row[DEPTH]))
        row[AT["log_input"]] = math.log(architecture.input)
        row[AT["attention_share"]] = total.attention / macs
        row[AT["log_spared"]] = math.log(macs / whole)
        row[AT["last_kept"]] = site.tokens / (site.height * site.width)
        row[AT["pyramid"]] = math.log2(first / site.height)
        return row, total

    def _block(
        self, block: Block, site: Site, parts: list[Cost], at: int, row: list[float], share: float
    ) -> tuple[int, Site]:
        """Walk over the parts of one block, in the order of `Costs.parts`; where the next begins, and its site."""
        at += 1  # norms and scales
        seen = worked = site.tokens
        out = site
        if block.reduction is not NONE:
            before, working, out = self._reduced(block.reduction, site)
            seen, worked = before.tokens, working.tokens
            row[self._column("reduction", block.reduction)] += share
            at += 1
        if block.position is not NONE:
            row[self._column("position", block.position)] += share
            row[POSITION] += share
            at += 1
        cells = site.height * site.width
        if block.mixer is NONE:
            row[UNMIXED] += share
            row[DEPTH] += 1.0
        else:
            column, layers, joins, anywhere = self._mixers.get(block.mixer) or self._mixer(block.mixer)
            macs, attention, _, _, transform = parts[at]
            row[column] += share
            row[DEPTH] += layers
            row[OF_MIXERS] += macs
            row[WHOLE] += macs * cells / seen
            if transform:
                row[SPECTRAL] += share
            elif attention:
                reach = 1.0 if joins else min(1.0, attention / (2.0 * seen * seen * site.dim))
                row[GLOBAL] += share * reach
                row[LOCAL] += share * (1.0 - reach)
            else:
                row[LINEAR if anywhere else STATIC] += share
            at += 1
        if block.feedforward is not NONE:
            column, needs_grid = self._feedforwards.get(block.feedforward) or self._feedforward(block.feedforward)
            row[column] += share
            macs = parts[at].macs
            row[OF_FEEDFORWARDS] += macs
            row[WHOLE] += macs * cells / worked
            row[ON_GRID] += share * needs_grid
            at += 1
        row[WIDTH] += share * math.log(site.dim)
        row[TOKENS] += share * math.log(cells)
        if block.layer_scale is not None:
            row[SCALE] += share
        return at + (block.exit is not NONE), out

    @staticmethod
    def _total(parts: Iterable[Cost]) -> Cost:
        macs, attention, params, activation, transform = zip(*parts, strict=True)
        return Cost(sum(macs), sum(attention), sum(params), max(activation), sum(transform))

    def _enter(self, stage: Stage, site: Site) -> Site:
        key = (stage.embed, stage.dim, stage.class_token, stage.distill_token, stage.registers, site)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = stage_site(self.operators, stage, site)
        return cast(Site, kept)

    def _reduced(self, spec: Spec, site: Site) -> tuple[Site, Site, Site]:
        key = (spec, site)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = reduced_sites(self.operators, spec, site)
        return cast(tuple[Site, Site, Site], kept)

    def _column(self, kind: str, spec: Spec) -> int:
        key = (kind, spec)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._columns[kind, spec.name]
        return cast(int, kept)

    def _mixer(self, spec: Spec) -> tuple[int, int, bool, bool]:
        """Column; layers (its knob `depth`); whether prefix tokens and so all tokens mix; whether it needs no grid."""
        cls = self.operators.get("mixer", spec.name)
        layers = spec.get("depth", knob_defaults(cls).get("depth", 1))
        found = self._mixers[spec] = self._column("mixer", spec), layers, cls.prefix == "joins", cls.takes != {GRID}
        return found

    def _feedforward(self, spec: Spec) -> tuple[int, bool]:
        """Column; whether it needs the grid."""
        cls = self.operators.get("feedforward", spec.name)
        found = self._feedforwards[spec] = self._column("feedforward", spec), cls.takes == {GRID}
        return found
