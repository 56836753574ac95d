"""Registered: any network of this project as a model of timm's, by the name `nas_network`.

`import nas.models`, and `timm.create_model("local-dir:FOLDER", pretrained=True)` makes it with its weights, with what
timm's own models take: `num_classes` (another number: a fresh classifier), `in_chans`, `img_size`, `drop_path_rate`,
`features_only` with `out_indices`; and `forward_intermediates`, `forward_features`, `forward_head`, `group_matcher`.

Features are those of every block where a network has one stage, and those of every stage where it has several. As maps
they have a value at every cell: that of the token which stands for it, and zero where the token was dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.network import Network, skeleton
from nas.model.plan import input_site, stage_site
from nas.model.spaces import shared_rules
from nas.model.stages import StageModule
from nas.ops.catalogue import catalogue
from nas.ops.tokens import Tokens, gather_rows, map_from_rows, put_rows

NAME = "nas_network"


@register_model
def nas_network(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """The network of an architecture document, given as `network`; the other arguments are timm's."""
    usual = len(arguments["network"]["stages"])  # every stage, or the last block of one
    features = {"out_indices": arguments.pop("out_indices", None) or usual, "feature_cls": "getter"}
    made: nn.Module = build_model_with_cfg(TimmNetwork, NAME, pretrained, feature_cfg=features, **arguments)
    return made


def classifiers(architecture: Architecture) -> list[str]:
    """The modules of a TimmNetwork whose weights belong to the classes."""
    two, three = (skeleton(replace(architecture, classes=count)).state_dict() for count in (2, 3))
    changed = {name.rpartition(".")[0] for name, tensor in two.items() if three[name].shape != tensor.shape}
    return [f"network.{name}" for name in sorted(changed)]


class TimmNetwork(nn.Module):
    """A network with the manners of timm's models."""

    def __init__(
        self,
        network: dict[str, Any],
        num_classes: int | None = None,
        in_chans: int | None = None,
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str | None = None,
    ):
        super().__init__()
        _refuse_pool(global_pool)
        if drop_rate:
            raise InputError("these networks have no dropout before the classifier", drop_rate, "drop_rate")
        sides = {img_size} if isinstance(img_size, int) else set(img_size or ())
        if len(sides) > 1:
            raise InputError("images are square", img_size, "img_size")
        changes = {"channels": in_chans, "input": sides.pop() if sides else None}
        document = {**network, **{key: value for key, value in changes.items() if value is not None}}
        architecture = Space.parse(document, shared_rules(), NAME).only()
        self.network = Network(architecture, drop_path=drop_path_rate)
        if num_classes not in (None, architecture.classes):
            self.network.reset_classifier(num_classes)
        self.in_chans = architecture.channels
        self.num_features = self.head_hidden_size = self.network.num_features
        self.by_block = len(architecture.stages) == 1
        self.feature_info = _feature_info(architecture, self.by_block)

    @property
    def num_classes(self) -> int:
        """Classes, 0 where there is no classifier."""
        return self.network.num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens (B, P + N, C) after the last block, before the head's norm."""
        return self.network.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the features, or what the classifier reads."""
        return self.network.forward_head(x, pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """(last features, intermediates), or the intermediates alone: maps (B, C, H, W), or tokens (B, N, C).

        indices: the last so many, all for None, or those of a list. Prefix tokens come beside them where asked for.
        """
        if norm or output_fmt not in ("NCHW", "NLC"):
            raise InputError("intermediates are NCHW or NLC, without the head's norm", (output_fmt, norm))
        taken, last = feature_take_indices(len(self.feature_info), indices)
        found: list[Any] = []
        for place, tokens in enumerate(self._states(x)):
            if place in taken:
                shown = as_map(tokens) if output_fmt == "NCHW" else tokens.patches
                found.append((shown, tokens.x[:, : tokens.prefix]) if return_prefix_tokens else shown)
            if stop_early and place == last:
                break
        return found if intermediates_only else (tokens.x, found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out what these features do not need, in place; which they are."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        if self.by_block:
            stage = self.network.stages[0]
            assert isinstance(stage, StageModule)
            stage.blocks = stage.blocks[: last + 1]
        else:
            self.network.stages = self.network.stages[: last + 1]
        if prune_head:
            self.network.reset_classifier(0)
        if prune_head and prune_norm:
            self.network.head = nn.Identity()  # type: ignore[assignment]
        return taken

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.network.get_classifier()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Fresh classifiers for another number of classes; 0 leaves none."""
        _refuse_pool(global_pool)
        self.network.reset_classifier(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of blocks again in the backward pass instead of keeping them."""
        self.network.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are no weights of a product: tokens that join, and tables of positions."""
        named = re.compile(r"(^|\.)(class_token|distill_token|registers)$|\.position\.")
        return {name for name, _ in self.named_parameters() if named.search(name)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of names by depth, for learning rates that fall with it."""
        stage = r"^network\.stages\.(\d+)"
        fine = [(stage + r"\.blocks\.(\d+)", None), (stage, (0,)), (r"^network\.head\.norm", (99999,))]
        return {"stem": r"^network\.stages\.0\.(?!blocks)", "blocks": stage if coarse else fine}

    def _states(self, image: Tensor) -> Iterator[Tokens]:
        """The state after every block or stage that has features, then the last of all."""
        tokens = self.network.read(image)
        for stage in self.network.stages:
            assert isinstance(stage, StageModule)
            tokens = stage.enter(tokens)
            for block in stage.blocks:
                tokens = stage.through(block, tokens)
                if self.by_block:
                    yield tokens
            tokens = stage.leave(tokens)
            if not self.by_block:
                yield tokens
        yield tokens


def as_map(tokens: Tokens) -> Tensor:
    """Patch tokens as a map (B, C, H, W), also where some were dropped (zeros) or merged (repeated)."""
    rows, cells = tokens.patches, tokens.height * tokens.width
    if tokens.cover is not None:
        rows = gather_rows(rows, tokens.cover)
    elif tokens.index is not None:
        nowhere = torch.where(tokens.index < 0, cells, tokens.index)  # tokens of no cell stand for dropped ones
        rows = put_rows(rows.new_zeros(rows.shape[0], cells + 1, rows.shape[2]), nowhere, rows)[:, :-1]
    return map_from_rows(rows, (tokens.height, tokens.width))


def _feature_info(architecture: Architecture, by_block: bool) -> list[dict[str, Any]]:
    """As timm wants it: module, channels, and pixels of a cell's side."""
    site, found = input_site(architecture), []
    for number, stage in enumerate(architecture.stages):
        site = stage_site(catalogue(), stage, site)
        module = f"network.stages.{number}"
        modules = [f"{module}.blocks.{place}" for place in range(len(stage.blocks))] if by_block else [module]
        reduction = architecture.input // site.height
        found += [{"module": name, "num_chs": stage.dim, "reduction": reduction} for name in modules]
    return found


def _refuse_pool(global_pool: str | None) -> None:
    if global_pool is not None:
        raise InputError("the head of these networks pools in its own way", global_pool, "global_pool")
