"""Network: an architecture as a plain module, with timm's manners."""

from __future__ import annotations

import itertools
from functools import partial

import torch
from torch import Tensor, nn

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.spec import Spec
from nas.model.plan import BlockPlan, block_plan, input_site, scales, stage_site
from nas.ops.base import Embed, Exit, FeedForward, Head, Mixer, Operator, Position, Reduction
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.parts.drop import DropPath
from nas.ops.parts.init import init_weights
from nas.ops.parts.norms import make_norm
from nas.ops.rules import OperatorRules
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
        make = partial(_make, operators)
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
        make = partial(_make, operators)
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
            tokens = block(tokens)
        return self.leave(tokens)

    def leave(self, tokens: Tokens) -> Tokens:
        if isinstance(self.end_norm, nn.Identity):
            return tokens
        return tokens.replace(x=self.end_norm(tokens.x), previous={})


class Network(nn.Module):
    """A network made from an architecture.

    Images (B, channels, input, input) to logits (B, classes). With exits, the logits of a sample are those of the first
    exit whose confidence reaches its threshold; `forward_exits` returns all of them, for training. drop_path rises
    linearly over the blocks to the rate given. `resized` makes the network for images of another size.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        drop_path: float = 0.0,
        operators: Catalogue | None = None,
        init: bool = True,
    ):
        super().__init__()
        operators = operators or catalogue()
        self.architecture = architecture
        self.num_classes = architecture.classes
        self.drop_path = drop_path
        self.has_exits = any(block.exit is not NONE for block in architecture.blocks)
        self.fused = False
        count = len(architecture.blocks)
        drops = iter([drop_path * i / max(1, count - 1) for i in range(count)])
        site = input_site(architecture)
        self.stages = nn.ModuleList()
        for stage in architecture.stages:
            rates = list(itertools.islice(drops, len(stage.blocks)))
            made = StageModule(stage, site, operators, architecture.classes, rates)
            self.stages.append(made)
            site = made.out
        self.out = site
        self.num_features = site.dim
        self.head: Head = _make(operators, "head", architecture.head, site, classes=architecture.classes)
        if init:
            self.init_weights()

    def init_weights(self) -> None:
        """Fresh weights, from torch's global generator."""
        self.apply(init_weights)
        for stage in self.stages:
            assert isinstance(stage, StageModule)
            for name in stage.joining:
                nn.init.trunc_normal_(getattr(stage, name), std=0.02)
        for module in self.modules():
            if isinstance(module, Operator):
                module.init()

    def forward_tokens(self, image: Tensor) -> Tokens:
        """The state after the last block."""
        tokens = self._read(image)
        for stage in self.stages:
            tokens = stage(tokens)
        return tokens

    def forward_features(self, image: Tensor) -> Tensor:
        """Tokens (B, P + N, C) after the last block, before the head's norm."""
        return self.forward_tokens(image).x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the features, or what the classifier reads."""
        tokens = Tokens(x, self.out.height, self.out.width, self.out.prefix, self.out.layout)
        return self.head(tokens, pre_logits=pre_logits)

    def forward_exits(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """(threshold, logits) of every exit in order, then (0, logits) of the head."""
        tokens, found = self._read(image), []
        for stage in self.stages:
            assert isinstance(stage, StageModule)
            tokens = stage.enter(tokens)
            for block in stage.blocks:
                assert isinstance(block, BlockModule)
                tokens = block(tokens)
                if block.exit is not None:
                    found.append((block.exit.threshold, block.exit(tokens)))
            tokens = stage.leave(tokens)
        return [*found, (0.0, self.head(tokens))]

    def forward(self, image: Tensor) -> Tensor:
        if not (self.has_exits and self.num_classes):
            return self.head(self.forward_tokens(image))
        *exits, (_, logits) = self.forward_exits(image)
        for threshold, early in reversed(exits):
            sure = early.softmax(dim=-1).amax(dim=-1, keepdim=True) >= threshold
            logits = torch.where(sure, early, logits)
        return logits

    @property
    def exits(self) -> list[Exit]:
        """The exits, in order."""
        return [module for module in self.modules() if isinstance(module, Exit)]

    def get_classifier(self) -> nn.Module:
        """The last linear layer, as timm names it."""
        return self.head.classifier  # type: ignore[return-value]

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh classifiers for another number of classes; 0 leaves none, no exit acts, and the result is features."""
        self.num_classes = num_classes
        before, like = set(self.modules()), next(self.parameters())
        for closing in (self.head, *(self.exits if num_classes else ())):
            closing.reset(num_classes)
        for module in self.modules():
            if module not in before:
                init_weights(module.to(like.device, like.dtype))

    @torch.no_grad()
    def fuse(self) -> Network:
        """Fold norms and branches that eval mode does not need, in place; equal outputs in eval mode."""
        for module in list(self.modules()):
            if isinstance(module, Operator):
                module.fuse()
        self.fused = True
        return self

    def resized(self, input: int, operators: Catalogue | None = None) -> Network:
        """A network for images of `input` pixels with a copy of these weights.

        Refused where an operator does not stand on the new grid, or has weights that are bound to the old one.
        """
        place = f"images of {input} pixels instead of {self.architecture.input}"
        rules = OperatorRules(operators or catalogue())
        architecture = Space.parse({**self.architecture.to_dict(), "input": input}, rules, place).only()
        made = Network(architecture, drop_path=self.drop_path, operators=operators, init=False)
        if self.num_classes != architecture.classes:
            made.reset_classifier(self.num_classes)
        if self.fused:
            made.fuse()
        state = self.state_dict()
        for name, tensor in made.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                raise InputError("weights are bound to the grid of tokens", value=name, place=place)
        like = next(self.parameters())
        made.to(like.device, like.dtype).load_state_dict(state)
        return made.train(self.training)

    def _read(self, image: Tensor) -> Tokens:
        """The state of an image, which must be of this network's size; channels-last, as all maps of tokens are."""
        side = self.architecture.input
        wanted = (self.architecture.channels, side, side)
        if tuple(image.shape[1:]) != wanted:
            rule = "this network reads images (B, {}, {}, {}); `resized` makes one for another size".format(*wanted)
            raise InputError(rule, value=tuple(image.shape))
        return Tokens.from_map(image.contiguous(memory_format=torch.channels_last))


def skeleton(architecture: Architecture, operators: Catalogue | None = None) -> Network:
    """The network without storage: shapes only, on the meta device (constants hold data)."""
    with torch.device("meta"):
        return Network(architecture, operators=operators, init=False)


def _make(operators: Catalogue, kind: str, spec: Spec, site: Site, **context: int):
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
