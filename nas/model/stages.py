"""Blocks and stages: the parts of a network, each made from the plan of its place."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas.core.architecture import NONE, Block, Stage
from nas.core.spec import Spec
from nas.model.plan import BlockPlan, block_plan, scales, stage_site
from nas.ops.base import Embed, Exit, FeedForward, Mixer, Position, Reduction
from nas.ops.catalogue import Catalogue
from nas.ops.parts.drop import DropPath
from nas.ops.parts.norms import make_norm
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class Scale(nn.Module):
    """LayerScale: a learned factor a channel."""

    def __init__(self, dim: int, initial: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class BlockModule(nn.Module):
    """One block; `nas.core.architecture.Block` says the order. `handed_on`: the next reads what its mixer leaves."""

    def __init__(
        self, block: Block, plan: BlockPlan, operators: Catalogue, classes: int, drop_path: float, handed_on: bool
    ):
        super().__init__()
        make = partial(make_operator, operators)
        dim = plan.entry.dim
        self.position: Position | None = make("position", block.position, plan.entry)
        self.reduction: Reduction | None = make("reduction", block.reduction, plan.reduction)
        self.mixer: Mixer | None = make("mixer", block.mixer, plan.mixer)
        self.feedforward: FeedForward | None = make("feedforward", block.feedforward, plan.feedforward)
        self.exit: Exit | None = make("exit", block.exit, plan.exit, classes=classes)
        self.joint = block.residual == "joint"
        self.forgets = self.reduction is None and not handed_on
        if self.mixer is not None:
            self.norm1 = make_norm(block.norm if self.mixer.normed else NONE, dim)
        if self.feedforward is not None:
            self.norm2 = make_norm(block.norm if self.feedforward.normed else NONE, dim)
        one, two = scales(self.mixer, self.feedforward, self.joint)
        scale = block.layer_scale
        self.scale1 = Scale(dim, scale) if one and scale is not None else nn.Identity()
        self.scale2 = Scale(dim, scale) if two and scale is not None else nn.Identity()
        self.drop = DropPath(drop_path)

    def forward(self, tokens: Tokens) -> Tokens:
        if self.position is not None:
            tokens = self.position(tokens)
        before = tokens
        tokens = self._reduce(tokens, "before")
        tokens = self._joint(tokens) if self.joint else self._feed(self._reduce(self._mix(tokens), "between"))
        tokens = self._reduce(tokens, "after")
        if self.reduction is not None and self.reduction.restores:
            tokens = self.reduction.restore(tokens, before)
        previous = tokens.carry if self.reduction is None else {}
        return tokens.replace(carry={}, previous=previous, rotary=None, bias=None)

    def _mix(self, tokens: Tokens) -> Tokens:
        if self.mixer is None:
            return tokens
        x = self._mixed(self.mixer, tokens)
        return tokens.replace(x=tokens.x + self.drop(self.scale1(x)) if self.mixer.residual else x)

    def _mixed(self, mixer: Mixer, tokens: Tokens) -> Tensor:
        """The mixer's result. What it leaves and nobody reads is dropped: its memory is used again while in cache."""
        x = mixer(self.norm1(tokens.x), tokens)
        if self.forgets:
            tokens.carry.clear()
        return x

    def _feed(self, tokens: Tokens) -> Tokens:
        if self.feedforward is None:
            return tokens
        x = self.feedforward(self.norm2(tokens.x), tokens)
        return tokens.replace(x=tokens.x + self.drop(self.scale2(x)) if self.feedforward.residual else x)

    def _joint(self, tokens: Tokens) -> Tokens:
        x = tokens.x
        if self.mixer is not None:
            x = self._mixed(self.mixer, tokens)
        if self.feedforward is not None:
            x = self.feedforward(self.norm2(x), tokens)
        return tokens.replace(x=tokens.x + self.drop(self.scale2(x)))

    def _reduce(self, tokens: Tokens, where: str) -> Tokens:
        if self.reduction is None or self.reduction.where != where:
            return tokens
        reduced = self.reduction(tokens).replace(previous={})
        if reduced.carry is not tokens.carry:
            tokens.carry.clear()
        return reduced


class StageModule(nn.Module):
    """Embedding, tokens that join, position, blocks, closing norm."""

    def __init__(self, stage: Stage, before: Site, operators: Catalogue, classes: int, drops: list[float]):
        super().__init__()
        make = partial(make_operator, operators)
        site = stage_site(operators, stage, before)
        self.grid = site.grid
        self.embed: Embed | None = make("embed", stage.embed, before, dim=stage.dim)
        self.embed_knobs = dict(stage.embed.knobs)
        joining = {"class_token": stage.class_token, "distill_token": stage.distill_token, "registers": stage.registers}
        for name, count in joining.items():
            token = nn.Parameter(torch.zeros(1, int(count), stage.dim)) if count else None
            self.register_parameter(name, token)
        self.joining = tuple(name for name, count in joining.items() if count)
        self.position: Position | None = make("position", stage.position, site)
        self.blocks = nn.ModuleList()
        for place, (block, drop) in enumerate(zip(stage.blocks, drops, strict=True), start=1):
            handed_on = any(_reads_previous(operators, later) for later in stage.blocks[place : place + 1])
            plan = block_plan(operators, block, site)
            self.blocks.append(BlockModule(block, plan, operators, classes, drop, handed_on))
            site = plan.out
        self.end_norm = make_norm(stage.end_norm, stage.dim)
        self.out = site
        self.checkpointing = False

    def enter(self, tokens: Tokens) -> Tokens:
        """The state at this stage's first block."""
        if self.embed is not None:
            patches = self.embed(tokens)
            height, width = self.embed.out(tokens.height, tokens.width, **self.embed_knobs)
            x = patches
            if tokens.prefix:
                x = torch.cat((self.embed.forward_prefix(tokens.x[:, : tokens.prefix]), patches), dim=1)
            tokens = Tokens(x, height, width, tokens.prefix)
        if self.joining:
            new = torch.cat([getattr(self, name) for name in self.joining], dim=1).expand(tokens.x.shape[0], -1, -1)
            old = tokens.x[:, : tokens.prefix]
            x = torch.cat((old, new, tokens.patches) if tokens.prefix else (new, tokens.patches), dim=1)
            tokens = tokens.replace(x=x, prefix=tokens.prefix + new.shape[1])
        tokens = tokens.replace(previous={})
        return tokens if self.position is None else self.position(tokens)

    def forward(self, tokens: Tokens) -> Tokens:
        tokens = self.enter(tokens)
        for block in self.blocks:
            tokens = self.through(block, tokens)
        return self.leave(tokens)

    def through(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """One block; in training with `checkpointing` its activations are computed again in the backward pass."""
        if self.checkpointing and self.training:
            result: Tokens = checkpoint(block, tokens, use_reentrant=False)
            return result
        made: Tokens = block(tokens)
        return made

    def leave(self, tokens: Tokens) -> Tokens:
        if isinstance(self.end_norm, nn.Identity):
            return tokens
        return tokens.replace(x=self.end_norm(tokens.x), previous={})


def make_operator(operators: Catalogue, kind: str, spec: Spec, site: Site, **context: int):
    """The operator of a spec at its site, or None."""
    if spec is NONE:
        return None
    return operators.get(kind, spec.name)(site, **context, **dict(spec.knobs))


def _reads_previous(operators: Catalogue, block: Block) -> bool:
    """Whether a block reads what the mixer of the one before it left."""
    classes = [
        operators.get(kind, spec.name)
        for kind, spec in (("mixer", block.mixer), ("reduction", block.reduction))
        if spec is not NONE
    ]
    return any(cls.reads_previous or cls.uses_previous for cls in classes)  # type: ignore[attr-defined]
