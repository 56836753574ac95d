"""One step: every drawn network forward and backward on the batch, gradients adding up in the bank.

The loss of a network is the cross-entropy with the targets, the mean over its exits and its head. In a sandwich the
largest network runs first and, with `inplace`, teaches the others: they learn its probabilities alone (Yu et al.,
"BigNAS", ECCV 2020, https://arxiv.org/abs/2003.11142). A teacher beside them takes its weight off the targets' part.
Losses are averaged over networks and rows, so that the clip and the learning rate mean the same whatever is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.model.network import Network
from nas.model.supernet import Supernet
from nas.training.config import TrainConfig
from nas.training.data.batches import Batch
from nas.training.distill import Prepared, Teacher, soft_cross_entropy
from nas.training.sampling import Draw

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Result(NamedTuple):
    """The mean loss of a step, on this process's rows, and that of each role."""

    loss: float
    roles: dict[str, float]


class Step:
    """The forward and backward passes of a training step; what updates weights is the loop's."""

    def __init__(self, supernet: Supernet, config: TrainConfig, teacher: Teacher | None = None):
        self.supernet = supernet
        self.config = config
        self.teacher = teacher
        self.device = next(supernet.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

    def __call__(self, number: int, batch: Batch, draws: Sequence[Draw], rank: int = 0) -> Result:
        """Add the gradients of step `number`. Sets torch's seed: noise is a function of (seed, step, rank)."""
        torch.manual_seed(noise_seed(self.config.seed, number, rank))
        images, targets = batch.images.to(self.device), batch.targets.to(self.device)
        parts = self.config.optimization.accumulate
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for some, wanted in zip(images.chunk(parts), targets.chunk(parts), strict=True):
            share = len(some) / len(images)
            for draw, loss in zip(draws, self._part(some, wanted, draws, share), strict=True):
                sums[draw.role] = sums.get(draw.role, 0.0) + share * loss
                counts[draw.role] = counts.get(draw.role, 0) + 1
        each = {role: value * parts / counts[role] for role, value in sums.items()}
        return Result(sum(sums.values()) / len(draws), each)

    def _part(self, images: Tensor, targets: Tensor, draws: Sequence[Draw], share: float) -> list[float]:
        """The loss of each network on its rows of these, after its backward pass."""
        guide: Tensor | None = None
        losses: list[float] = []
        with self._precision():
            told = None if self.teacher is None else self.teacher.prepare(images)
        for draw in draws:
            rows = draw.rows(len(images))
            own = None if told is None else Prepared(told.told[rows])
            with self._precision():
                loss, logits = self._loss(self._network(draw), images[rows], targets[rows], guide, own)
            self.scaler.scale(loss * (share / len(draws))).backward()
            if draw.role == "largest" and self.config.networks.inplace:
                guide = logits
            losses.append(float(loss.detach()))
        return losses

    def _network(self, draw: Draw) -> Network:
        network = self.supernet.bind(draw.architecture, train=True)
        network.set_drop_path(self.config.drop_path)
        network.set_grad_checkpointing(self.config.checkpointing)
        return network

    def _loss(
        self, network: Network, images: Tensor, targets: Tensor, guide: Tensor | None, told: Prepared | None
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the head's logits to teach others with."""
        if network.has_exits:
            outputs = [logits for _, logits in network.forward_exits(images)]
            tokens = None
        else:
            tokens = network.forward_tokens(images)
            outputs = [network.head(tokens) if self.teacher is None else self.teacher.logits(network, tokens)]
        if guide is not None:  # there only beside networks on the same rows
            temperature = self.config.networks.temperature
            own = torch.stack([soft_cross_entropy(logits, guide, temperature) for logits in outputs]).mean()
        else:
            smoothing = self.config.label_smoothing
            own = torch.stack([F.cross_entropy(x.float(), targets, label_smoothing=smoothing) for x in outputs]).mean()
        if self.teacher is not None and told is not None:
            weight = self.teacher.weight
            own = (1 - weight) * own + weight * self.teacher.loss(network, tokens, outputs[-1], told)
        return own, outputs[-1].detach()

    def _precision(self) -> torch.autocast:
        dtype = PRECISIONS[self.config.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32)


def noise_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's own noise (stochastic depth, learned reductions)."""
    return int.from_bytes(hashlib.sha256(f"noise:{seed}:{step}:{rank}".encode()).digest()[:8]) >> 1
