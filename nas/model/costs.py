"""The exact costs of architectures, from formulas alone: nothing is built."""

from __future__ import annotations

from typing import Any, cast

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.cost import NOTHING, Cost, weights
from nas.core.spec import Spec
from nas.model.plan import heads_of, input_site, reduced_sites, scales, stage_site
from nas.ops.base import FeedForward, Mixer
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.parts.norms import norm_cost
from nas.ops.site import Site


class Costs:
    """Costs of architectures over one catalogue. The cost of an operator at a site is kept, so it is paid for once."""

    def __init__(self, operators: Catalogue | None = None):
        self.operators = operators or catalogue()
        self._costs: dict[tuple[Any, ...], Cost] = {}
        self._kept: dict[Any, Any] = {}

    def cost(self, architecture: Architecture) -> Cost:
        """Counts of the whole network for one image. Exits count as if every sample ran through all of them."""
        macs = attention = params = activation = transform = 0
        for cost in self.parts(architecture):
            macs += cost[0]
            attention += cost[1]
            params += cost[2]
            if cost[3] > activation:
                activation = cost[3]
            transform += cost[4]
        return Cost(macs, attention, params, activation, transform)

    def parts(self, architecture: Architecture) -> list[Cost]:
        """The cost of each part, in order."""
        site = input_site(architecture)
        found: list[Cost] = []
        for stage in architecture.stages:
            site = self.stage(stage, site, found)
            for block in stage.blocks:
                site = self.block(block, site, architecture.classes, found)
            found.append(norm_cost(stage.end_norm, stage.dim))
        head = self.part("head", architecture.head, site, classes=architecture.classes)
        return [*found, head]

    def stage(self, stage: Stage, site: Site, found: list[Cost]) -> Site:
        """Add the cost of a stage before its blocks; the site of the first."""
        key = (stage.embed, stage.dim, stage.class_token, stage.distill_token, stage.registers, stage.position, site)
        kept = self._kept.get(key)
        if kept is None:
            cost = self.part("embed", stage.embed, site, dim=stage.dim)
            after = stage_site(self.operators, stage, site)
            joining = weights((after.prefix - site.prefix) * stage.dim)
            cost = cost + joining + self.part("position", stage.position, after)
            kept = self._kept[key] = (cost, after)
        found.append(kept[0])
        return kept[1]

    def block(self, block: Block, site: Site, classes: int, found: list[Cost]) -> Site:
        """Add the costs of a block; the site after it. The walk of `nas.model.plan.block_plan`, over kept costs."""
        heads, head_dim, fixed = self._frame(block, site.dim)
        found.append(fixed)
        entry = site._replace(heads=heads, head_dim=head_dim) if heads else site
        mixer = feedforward = out = entry
        if block.reduction is not NONE:
            mixer, feedforward, out = self._reduced(block.reduction, entry)
            found.append(self.part("reduction", block.reduction, entry))
        if block.position is not NONE:
            found.append(self.part("position", block.position, entry))
        if block.mixer is not NONE:
            found.append(self.part("mixer", block.mixer, mixer))
        if block.feedforward is not NONE:
            found.append(self.part("feedforward", block.feedforward, feedforward))
        if block.exit is not NONE:
            found.append(self.part("exit", block.exit, out, classes=classes))
        return out._replace(heads=0, head_dim=0) if heads else out

    def _frame(self, block: Block, dim: int) -> tuple[int, int, Cost]:
        """Heads of the mixer, and the cost of norms and scales."""
        key = (block.mixer, block.feedforward, block.norm, block.residual, block.layer_scale, dim)
        kept = self._kept.get(key)
        if kept is None:
            cost = NOTHING
            mixer: type[Mixer] | None = None
            feedforward: type[FeedForward] | None = None
            if block.mixer is not NONE:
                mixer = cast(type[Mixer], self.operators.get("mixer", block.mixer.name))
                cost = cost + norm_cost(block.norm if mixer.normed else NONE, dim)
            if block.feedforward is not NONE:
                feedforward = cast(type[FeedForward], self.operators.get("feedforward", block.feedforward.name))
                cost = cost + norm_cost(block.norm if feedforward.normed else NONE, dim)
            if block.layer_scale is not None:
                cost = cost + weights(sum(scales(mixer, feedforward, block.residual == "joint")) * dim)
            kept = self._kept[key] = (*heads_of(self.operators, block.mixer, dim), cost)
        return kept

    def _reduced(self, spec: Spec, entry: Site) -> tuple[Site, Site, Site]:
        key = (spec, entry)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = reduced_sites(self.operators, spec, entry)
        return kept

    def part(self, kind: str, spec: Spec, site: Site, **context: int) -> Cost:
        """The cost of an operator at a site."""
        if spec is NONE:
            return NOTHING
        key = (kind, spec, site, *context.values()) if context else (kind, spec, site)
        cost = self._costs.get(key)
        if cost is None:
            cls = self.operators.get(kind, spec.name)
            cost = self._costs[key] = cls.cost(site, **context, **dict(spec.knobs))
        return cost
