"""Network: an architecture as a plain module, with timm's manners."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from nas.core.architecture import NONE, Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.plan import input_site
from nas.model.stages import BlockModule, StageModule, make_operator
from nas.ops.base import Exit, Head, Operator
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.parts.init import init_weights
from nas.ops.rules import OperatorRules
from nas.ops.tokens import Tokens


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
        drops = iter(_drops(drop_path, len(architecture.blocks)))
        site = input_site(architecture)
        self.stages = nn.ModuleList()
        for stage in architecture.stages:
            rates = list(itertools.islice(drops, len(stage.blocks)))
            made = StageModule(stage, site, operators, architecture.classes, rates)
            self.stages.append(made)
            site = made.out
        self.out = site
        self.num_features = site.dim
        self.head: Head = make_operator(operators, "head", architecture.head, site, classes=architecture.classes)
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
        tokens = self.read(image)
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
        tokens, found = self.read(image), []
        for stage in self.stages:
            assert isinstance(stage, StageModule)
            tokens = stage.enter(tokens)
            for block in stage.blocks:
                assert isinstance(block, BlockModule)
                tokens = stage.through(block, tokens)
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

    def set_drop_path(self, rate: float) -> None:
        """Stochastic depth that rises linearly over the blocks to this rate."""
        self.drop_path = rate
        blocks = [module for module in self.modules() if isinstance(module, BlockModule)]
        for block, own in zip(blocks, _drops(rate, len(blocks)), strict=True):
            block.drop.rate = own

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of blocks again in the backward pass instead of keeping them."""
        for stage in self.stages:
            assert isinstance(stage, StageModule)
            stage.checkpointing = enable

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

    def read(self, image: Tensor) -> Tokens:
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


def _drops(rate: float, count: int) -> list[float]:
    """The rate of each block."""
    return [rate * i / max(1, count - 1) for i in range(count)]
