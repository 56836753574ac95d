"""The stream of training batches: a pure function of (seed, step), whatever the number of processes and workers.

An epoch is a random order of the training split, another in each; what is left over when it is cut into batches is
dropped. Data that is unlimited is read on and on instead, from a place that depends on the seed. Mixup and cutmix are
timm's, one draw a batch. They mix row i of the global batch with row B-1-i: both go to one process, placed so that
they meet there as well, and the rows of all processes together are the very batch of a single one.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nas.core.errors import InputError
from nas.core.processes import served
from nas.training.data.augment import Augment
from nas.training.data.base import Data
from nas.training.data.randomness import derived, kept_generators, permutation, sample_seeds, seed_generators

AHEAD = 2**40  # where in unlimited data a seed may begin


class Batch(NamedTuple):
    """Images (rows, C, size, size), float32; targets (rows), int64, or (rows, classes), float32, of mixed pairs."""

    images: Tensor
    targets: Tensor


class Batches:
    """Batches of the training split. `size` is that of the global batch; `at` gives the rows of process `rank`."""

    def __init__(
        self,
        data: Data,
        size: int,
        seed: int,
        augment: Augment | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.data, self.size, self.seed, self.workers = data, size, seed, workers
        self.augment = augment if augment is not None else Augment()
        self.augment.check(data.able, data.name)
        self.steps_per_epoch = data.length("train") // size if size >= 1 else 0
        if not self.steps_per_epoch:
            raise InputError(f"a batch has 1 to {data.length('train')} images with this data", size, data.name)
        if size % world:
            raise InputError(f"a batch is cut into {world} equal parts, one for each process", size)
        self.rows = paired_rows(size, rank, world) if self.augment.mixes else plain_rows(size, rank, world)

    def at(self, step: int) -> Batch:
        """This process's rows of the batch of a step, from 0 on."""
        if step < 0:
            raise ValueError(f"steps begin at 0, not {step}")
        if self.data.unlimited:
            indices = derived(self.seed, "start") % AHEAD + step * self.size + self.rows
        else:
            epoch, inside = divmod(step, self.steps_per_epoch)
            order = _order(derived(self.seed, "order", epoch), self.data.length("train"))
            indices = order[inside * self.size + self.rows]
        seeds = sample_seeds(derived(self.seed, "augment", step), self.rows)
        images, labels = self.data.read("train", indices, self.augment, seeds)
        return self._mixed(step, images, labels) if self.augment.mixes else Batch(images, labels)

    def from_step(self, step: int) -> Iterator[Batch]:
        """The batches from a step on, without end; read ahead by worker processes where there are any."""
        if not self.workers:
            yield from map(self.at, itertools.count(step))
        loader: DataLoader[Any] = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=_From(step),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_parent,
            multiprocessing_context=served([__name__]),
            generator=torch.Generator(),  # else it draws from the global one
        )
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item

    def _mixed(self, step: int, images: Tensor, labels: Tensor) -> Batch:
        """Mixed in pairs by timm, which draws from numpy's global generator."""
        from timm.data.mixup import Mixup

        mixup = Mixup(
            mixup_alpha=self.augment.mixup,
            cutmix_alpha=self.augment.cutmix,
            prob=self.augment.mix_probability,
            switch_prob=self.augment.switch_probability,
            label_smoothing=0.0,  # the loss's to do
            num_classes=self.data.classes,
        )
        with kept_generators():
            seed_generators(derived(self.seed, "mix", step))
            return Batch(*mixup(images, labels))


@lru_cache(maxsize=4)
def _order(seed: int, length: int) -> NDArray[np.int64]:
    return permutation(seed, length)


def plain_rows(size: int, rank: int, world: int) -> NDArray[np.int64]:
    """The rows of the global batch that a process has: one piece after the other."""
    part = size // world
    return np.arange(rank * part, (rank + 1) * part)


def paired_rows(size: int, rank: int, world: int) -> NDArray[np.int64]:
    """Whole pairs (i, size-1-i), so that the k-th row from the front is the partner of the k-th from the back."""
    if size % (2 * world):
        raise InputError(f"mixup and cutmix take pairs: a multiple of {2 * world} images a batch", size)
    first = plain_rows(size // 2, rank, world)
    return np.concatenate([first, size - 1 - first[::-1]])


class _Steps(Dataset[Any]):
    """Batches by step, for torch's loader, which would retell bad input with a traceback: it is handed over whole."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | InputError:
        try:
            return self.batches.at(step)
        except InputError as error:
            return error


class _From(Sampler[int]):
    def __init__(self, step: int) -> None:
        self.step = step

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.step)


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_parent(_worker: int) -> None:
    """An interrupt of all processes of a terminal is for the parent; a termination ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
