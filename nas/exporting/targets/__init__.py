"""Targets of export: forms in which a network leaves, one a file, discovered; each but timm and python is optional.

A target's module imports nothing heavy until it is used, and has

    about       one line for help and docs
    PACKAGES    what must be installed (import names)
    TOLERANCE   the largest absolute difference from the network's outputs that passes, times max(1, largest |output|)
    write(subject, folder) -> None       writes its files into an existing empty folder, identical bytes every time;
                                         raises Refused with the reason where the format cannot hold the network
    load(folder, images, threads=1) -> Call   runs the files as a user would, with nothing of this project where the
                                         format allows that; each call runs the images and returns the logits as a
                                         tensor of torch
    usage(name) -> str                   a few lines of Python that a user runs from the export's folder, where the
                                         target's files are in the folder of its own name; name is the subject's

What is written is never unpickled by `load`.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from nas.core.errors import InputError, nearest
from nas.core.kinds import lacking, modules_of


class Refused(RuntimeError):
    """This target cannot hold this network, and why, in one line."""


@cache
def targets() -> dict[str, ModuleType]:
    """Name to module of every target."""
    return modules_of(__name__, __file__)


def target(name: str) -> ModuleType:
    """A target by name."""
    known = targets()
    if name not in known:
        raise InputError("unknown target of export", value=name, nearest=nearest(name, known))
    return known[name]


def missing(name: str) -> tuple[str, ...]:
    """The packages that the target needs and that are not installed."""
    return lacking(target(name).PACKAGES)
