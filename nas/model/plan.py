"""Plan: the site of every operator of a network, in order. The network and its cost are both made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.cost import Cost
from nas.core.spec import Spec
from nas.ops.base import Embed, FeedForward, Mixer, Reduction
from nas.ops.catalogue import Catalogue
from nas.ops.site import Site


class BlockPlan(NamedTuple):
    """Where the operators of one block stand, and the site that it leaves."""

    entry: Site  # of the position operator, with the mixer's heads
    mixer: Site
    reduction: Site
    feedforward: Site
    exit: Site
    out: Site


def block_plan(operators: Catalogue, block: Block, site: Site) -> BlockPlan:
    """Follow the token count through a block; see `nas.ops.base.Reduction` for the places where it may change."""
    heads, head_dim = heads_of(operators, block.mixer, site.dim)
    entry = site._replace(heads=heads, head_dim=head_dim)
    if block.reduction is NONE:
        return BlockPlan(entry, entry, entry, entry, entry, site)
    mixer, feedforward, out = reduced_sites(operators, block.reduction, entry)
    return BlockPlan(entry, mixer, entry, feedforward, out, out._replace(heads=0, head_dim=0))


def reduced_sites(operators: Catalogue, reduction: Spec, entry: Site) -> tuple[Site, Site, Site]:
    """The sites of mixer and feed-forward, and the one after the block, where a reduction acts."""
    cls = operators.get("reduction", reduction.name)
    assert issubclass(cls, Reduction)
    knobs = dict(reduction.knobs)
    reduced = entry._replace(tokens=cls.out(entry, **knobs))
    if cls.leaves is not None:
        reduced = reduced._replace(layout=cls.leaves, unit=cls.unit_left(**knobs))
    mixer = reduced if cls.where == "before" else entry
    feedforward = entry if cls.where == "after" else reduced
    return mixer, feedforward, entry if cls.restores else reduced


def stage_site(operators: Catalogue, stage: Stage, site: Site) -> Site:
    """The site of a stage's blocks, from the site before its embedding."""
    height, width = site.grid
    if stage.embed is not NONE:
        cls = operators.get("embed", stage.embed.name)
        assert issubclass(cls, Embed)
        height, width = cls.out(height, width, **dict(stage.embed.knobs))
    joining = stage.class_token + stage.distill_token + stage.registers
    if stage.embed is NONE:
        return site._replace(dim=stage.dim, prefix=site.prefix + joining, heads=0, head_dim=0)
    return Site(stage.dim, height, width, height * width, site.prefix + joining)


class Place(NamedTuple):
    """An operator of a network: the path of its module, what it is, and where it stands."""

    path: str
    kind: str
    spec: Spec
    site: Site
    context: dict[str, int]  # further arguments of its class and of its cost

    def cost(self, operators: Catalogue) -> Cost:
        """Counts for one image."""
        return operators.get(self.kind, self.spec.name).cost(self.site, **self.context, **dict(self.spec.knobs))


def places_of(operators: Catalogue, architecture: Architecture) -> Iterator[Place]:
    """Every operator of a network, in order."""
    return (place for place in _places(operators, architecture) if place.spec is not NONE)


def _places(operators: Catalogue, architecture: Architecture) -> Iterator[Place]:
    site, whole = input_site(architecture), {"classes": architecture.classes}
    for number, stage in enumerate(architecture.stages):
        path = f"stages.{number}"
        yield Place(f"{path}.embed", "embed", stage.embed, site, {"dim": stage.dim})
        site = stage_site(operators, stage, site)
        yield Place(f"{path}.position", "position", stage.position, site, {})
        for depth, block in enumerate(stage.blocks):
            plan, inside = block_plan(operators, block, site), f"{path}.blocks.{depth}"
            yield from block_places(block, plan, architecture.classes, inside)
            site = plan.out
    yield Place("head", "head", architecture.head, site, whole)


def block_places(block: Block, plan: BlockPlan, classes: int, path: str = "") -> Iterator[Place]:
    """The operators of one block, in order, and what is none there."""
    yield Place(f"{path}.position", "position", block.position, plan.entry, {})
    yield Place(f"{path}.reduction", "reduction", block.reduction, plan.reduction, {})
    yield Place(f"{path}.mixer", "mixer", block.mixer, plan.mixer, {})
    yield Place(f"{path}.feedforward", "feedforward", block.feedforward, plan.feedforward, {})
    yield Place(f"{path}.exit", "exit", block.exit, plan.exit, {"classes": classes})


def input_site(architecture: Architecture) -> Site:
    """The site of the image."""
    side = architecture.input
    return Site(architecture.channels, side, side, side * side)


def heads_of(operators: Catalogue, mixer: Spec, dim: int) -> tuple[int, int]:
    """Heads and head dimension of a block's mixer."""
    if mixer is NONE:
        return 0, 0
    cls = operators.get("mixer", mixer.name)
    assert issubclass(cls, Mixer)
    return cls.heads_of(dim, **dict(mixer.knobs))


def scales(
    mixer: Mixer | type[Mixer] | None, feedforward: FeedForward | type[FeedForward] | None, joint: bool
) -> tuple[bool, bool]:
    """Where LayerScale stands: after each branch that is added as a residual, once at the end of a joint one."""
    if joint:
        return False, True
    return mixer is not None and mixer.residual, feedforward is not None and feedforward.residual
