"""Checking: an exported file is run and compared with the network, and timed against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.exporting.subject import Subject
from nas.exporting.targets import target

if TYPE_CHECKING:
    from nas.latency.clock import Reading

IMAGES = 2  # that outputs are compared on


def largest_difference(name: str, subject: Subject, folder: Path) -> float:
    """The largest absolute difference of a target's outputs from the network's, on noise and one thread.

    InputError where it is beyond the target's tolerance, times the largest output where that is above 1.
    """
    import torch

    from nas.latency.runtimes._torch import threads
    from nas.latency.target import Target

    images = subject.steady(IMAGES)
    with threads(Target(threads=1)), torch.no_grad():
        expected = subject.network(images)
        found = target(name).load(folder, images)()
    if found.shape != expected.shape:
        shapes = f"{tuple(found.shape)}, not {tuple(expected.shape)}"
        raise InputError("the exported file must give what the network gives", shapes, name)
    apart = float((found.float() - expected).abs().max())
    allowed = target(name).TOLERANCE * max(1.0, float(expected.abs().max()))
    if not apart <= allowed:
        rule = f"the exported file must answer as the network does, within {allowed:.1e}, and is apart by"
        raise InputError(rule, apart, name)
    return apart


def measured(name: str, subject: Subject, folder: Path, seconds: float) -> Reading:
    """The latency of one image in the exported file's own runtime, against the network as PyTorch runs it; one thread.

    Pairs in turn, for at most so many seconds: a reading's `ms` is the file's, `reference_ms` the network's.
    """
    from nas.latency.clock import Limits, OneThread, compare
    from nas.latency.runtimes import eager
    from nas.latency.runtimes._torch import threads
    from nas.latency.target import Target

    one, image = Target(threads=1), subject.images(1)
    limits = Limits(tolerance=0.02, min_pairs=8, max_pairs=200, seconds=seconds)
    with threads(one):
        reference = eager.load(subject.network, (image,), one)
        return compare(target(name).load(folder, image), reference, limits, OneThread())
