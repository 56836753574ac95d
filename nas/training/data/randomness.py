"""Random numbers by counter: what a sample is drawn with depends on its seed alone, not on what was drawn before.

The mixing function is that of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, https://doi.org/10.1145/2660193.2660195). Whole numbers and one product with a power of two: the same bits
on every machine and with every version of numpy.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

Seeds = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(0xBF58476D1CE4E5B9)
_TWO = np.uint64(0x94D049BB133111EB)


def derived(*parts: object) -> int:
    """A seed below 2**63 made of words and numbers; other parts give another."""
    text = ":".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def sample_seeds(seed: int, indices: NDArray[np.int64]) -> Seeds:
    """One seed for each index."""
    return _mixed(_mixed(np.asarray(indices).astype(np.uint64)) + np.array([seed], np.uint64))


def uniforms(seeds: Seeds, count: int) -> NDArray[np.float64]:
    """So many numbers in [0, 1) for each seed: (seeds, count)."""
    start = _mixed(seeds)[:, None]
    bits = _mixed(start + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, length: int) -> NDArray[np.int64]:
    """The numbers below `length` in random order."""
    return np.argsort(sample_seeds(seed, np.arange(length)), kind="stable")


def _mixed(values: Seeds) -> Seeds:
    """SplitMix64's output function, one to one on 64 bits; products wrap."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _ONE
    z = (z ^ (z >> np.uint64(27))) * _TWO
    return z ^ (z >> np.uint64(31))


@contextmanager
def kept_generators() -> Iterator[None]:
    """Puts the global generators of Python, numpy and torch (the processor's) back as they were."""
    own, numpys, torchs = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)
        torch.default_generator.set_state(torchs)


def seed_generators(seed: int) -> None:
    """Seeds the three; only for use within `kept_generators`, around parts of other libraries that draw from them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators are seeded within, and afterwards as they were before."""
    with kept_generators():
        seed_generators(seed)
        yield
