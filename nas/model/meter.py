"""Meter: what each decision of a network adds to its cost, for walks through the decisions of a space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from nas.core.architecture import NONE, Block, Stage
from nas.core.cost import NOTHING, Cost, weights
from nas.core.space import Space
from nas.core.spec import Spec
from nas.model.costs import Costs
from nas.model.plan import block_plan, stage_site
from nas.ops.base import FeedForward, Mixer, Position
from nas.ops.catalogue import Catalogue
from nas.ops.parts.norms import norm_cost
from nas.ops.site import Site


class Walk(NamedTuple):
    """What the cost of later parts depends on: the site of the stage's or block's entry, and what is open within it."""

    site: Site
    open: tuple[Any, ...] = ()


class Meter:
    """What each decision adds to a cost, as soon as it is known; in sum the cost of the network.

    Only mixers, reductions, and positions that supply something to the mixer may count the heads of a block.
    """

    def __init__(self, space: Space, measure: str, operators: Catalogue):
        self.operators = operators
        self.field = Cost._fields.index(measure)
        self.join: Callable[[int, int], int] = max if measure == "activation" else int.__add__
        self.classes = space.template.classes
        self.start = Walk(Site(space.template.channels, 0, 0, 0))
        self._part = Costs(operators).part

    def step(self, walk: Walk, kind: str, value: Any) -> tuple[int, Walk]:
        """What a decision adds, and what later ones depend on afterwards."""
        cost, after = self._step(walk.site, walk.open, kind, value)
        return cost[self.field], after

    def _step(self, site: Site, open: tuple[Any, ...], kind: str, value: Any) -> tuple[Cost, Walk]:
        match kind:
            case "input":
                return NOTHING, Walk(site._replace(height=value, width=value, tokens=value * value))
            case "layout" | "repeat":
                return NOTHING, Walk(site)
            case "stage.dim" | "stage.class_token" | "stage.distill_token" | "stage.registers":
                return NOTHING, Walk(site, (*open, value))
            case "stage.embed":
                return self._embed(site, value, *open)
            case "stage.position":
                return self._part("position", value, site), Walk(site)
            case "position" if not self._supplies(value):
                return self._part("position", value, site), Walk(site, (NONE,))
            case "position" | "reduction":
                return NOTHING, Walk(site, (*open, value))
            case "end_norm":
                return norm_cost(value, site.dim), Walk(site)
            case "head":
                return self._part("head", value, site, classes=self.classes), Walk(site)
        return self._block(site, open, kind, value)

    def _embed(
        self, site: Site, embed: Spec, dim: int, class_token: bool, distill_token: bool, registers: int
    ) -> tuple[Cost, Walk]:
        stage = Stage(embed, dim, (), class_token, distill_token, registers)
        after = stage_site(self.operators, stage, site)
        joining = weights((after.prefix - site.prefix) * dim)
        return self._part("embed", embed, site, dim=dim) + joining, Walk(after)

    def _block(self, site: Site, open: tuple[Any, ...], kind: str, value: Any) -> tuple[Cost, Walk]:
        """Within a block: the mixer decides the sites of all its parts; norms and scales are counted as parts come."""
        if kind == "mixer":
            position, reduction = open
            plan = block_plan(self.operators, Block(value, position=position, reduction=reduction), site)
            cost = self._part("position", position, plan.entry) + self._part("reduction", reduction, plan.reduction)
            normed, added = self._parts(kind, value)
            stands, exit = (at._replace(heads=0, head_dim=0) for at in (plan.feedforward, plan.exit))
            open = (stands, exit, plan.out, normed, added)
            return cost + self._part("mixer", value, plan.mixer), Walk(site, open)
        if kind == "feedforward":
            stands, exit, out, norms, scales = open
            normed, added = self._parts(kind, value)
            open = (exit, out, norms + normed, scales + added)
            return self._part("feedforward", value, stands), Walk(site, open)
        exit, out, norms, scales = open
        if kind == "norm":
            return norm_cost(value, site.dim).times(norms), Walk(site, (exit, out, 0, scales))
        if kind == "residual":
            return NOTHING, Walk(site, (exit, out, norms, 1 if value == "joint" else scales))
        if kind == "layer_scale":
            cost = NOTHING if value is None else weights(scales * site.dim)
            return cost, Walk(site, (exit, out, norms, 0))
        assert kind == "exit", kind
        return self._part("exit", value, exit, classes=self.classes), Walk(out)

    def _supplies(self, position: Spec) -> bool:
        """Whether a position operator leaves something to the mixer, so that its cost depends on the heads."""
        if position is NONE:
            return False
        return bool(cast(type[Position], self.operators.get("position", position.name)).supplies)

    def _parts(self, kind: str, spec: Spec) -> tuple[int, int]:
        """Norms before an operator and scales after it."""
        if spec is NONE:
            return 0, 0
        cls = self.operators.get(kind, spec.name)
        assert issubclass(cls, (Mixer, FeedForward))
        return int(cls.normed), int(cls.residual)
