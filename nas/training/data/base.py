"""Data: labelled square images in splits. What is open for training and search does not hold the test split."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nas.core.errors import InputError, nearest
from nas.training.data.augment import Augment
from nas.training.data.randomness import Seeds

Indices = NDArray[np.int64]
Labelled = tuple[Tensor, Tensor]

TRAINING = ("train", "search")
TESTING = ("test",)


class Wanted(NamedTuple):
    """What was asked for; opens the same data again."""

    name: str
    size: int | None = None  # pixels of a side
    channels: int | None = None
    seed: int = 0  # of the splits, or of the pictures where they are made
    root: str | None = None


class Shape(NamedTuple):
    """Of all images."""

    classes: int
    channels: int
    size: int


class Data(ABC):
    """A data set. A subclass says how it opens, how long its splits are, and how images are read."""

    names: ClassVar[tuple[str, ...]]  # whole names, and beginnings that end with `/` or `:`
    able: ClassVar[frozenset[str]]  # fields of Augment that it can do
    usual: Augment  # a sound augmentation to begin with
    unlimited: ClassVar[bool] = False  # whether training images are made: any index from 0 is one, length is an epoch's

    @final
    def __init__(self, wanted: Wanted, splits: tuple[str, ...]) -> None:
        self.wanted, self.name, self.splits = wanted, wanted.name, splits
        if wanted.channels not in (None, 1, 3):
            raise InputError("images have 1 or 3 channels", wanted.channels, wanted.name)
        self.classes, self.channels, self.size = self._open()

    @abstractmethod
    def _open(self) -> Shape:
        """Find what `splits` need, of `wanted`; nothing of other splits is kept."""

    @abstractmethod
    def _length(self, split: str) -> int: ...

    @abstractmethod
    def _read(self, split: str, indices: Indices, augment: Augment | None, seeds: Seeds) -> Labelled:
        """As `read`; what comes in is checked, `augment` changes single images or is None, and the tensors are new."""

    @abstractmethod
    def _contents(self) -> Iterator[bytes]:
        """What the images depend on, for the fingerprint."""

    @final
    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of name, shape, seed, splits and contents, as far as the subclass looks at these."""
        told = (self.name.partition(":")[0], self.classes, self.channels, self.size, self.wanted.seed, self.splits)
        digest = hashlib.sha256(repr(told).encode())
        for piece in self._contents():
            digest.update(piece)
        return digest.hexdigest()

    @final
    def length(self, split: str) -> int:
        """Images of a split; where they are unlimited, those of an epoch."""
        self._check(split)
        return self._length(split)

    @final
    def read(
        self,
        split: str,
        indices: Sequence[int] | ArrayLike,
        augment: Augment | None = None,
        seeds: Sequence[int] | ArrayLike | None = None,
    ) -> Labelled:
        """Normalised images (n, channels, size, size), float32, and labels (n), int64; a function of its arguments.

        `augment` changes each image by its own seed, one an image (mixtures of a batch are made in `Batches`).
        """
        self._check(split)
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        endless = self.unlimited and split == "train"
        if chosen.size and (chosen.min() < 0 or (not endless and chosen.max() >= self._length(split))):
            wrong = chosen.min() if chosen.min() < 0 else chosen.max()
            rule = f"the {split} split has images 0 to {self._length(split) - 1}"
            raise InputError(rule, int(wrong), self.name)
        if augment is None or not augment.per_image:
            augment, own = None, np.zeros(len(chosen), np.uint64)
        elif seeds is None or len(own := np.asarray(seeds).astype(np.uint64).reshape(-1)) != len(chosen):
            raise ValueError("augmentation needs one seed for each image")
        else:
            augment.check(self.able, self.name)
        if not chosen.size:
            return torch.empty(0, self.channels, self.size, self.size), torch.empty(0, dtype=torch.int64)
        return self._read(split, chosen, augment, own)

    def _check(self, split: str) -> None:
        if split in self.splits:
            return
        if split in TESTING:
            raise InputError("the test split is out of reach here: nas.training.data.testing opens it", split)
        raise InputError("no such split", split, self.name, nearest(split, self.splits))


def side(wanted: Wanted, usual: int, low: int, high: int) -> int:
    """The pixels of a side that were asked for, or the usual ones; InputError outside the limits."""
    if wanted.size is None:
        return usual
    if not low <= wanted.size <= high:
        raise InputError(f"pixels of a side: {low} to {high} here", wanted.size, wanted.name)
    return wanted.size
