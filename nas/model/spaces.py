"""Spaces by name: the files in search_spaces, or a file of one's own."""

from __future__ import annotations

from functools import cache

from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.ops.rules import OperatorRules


@cache
def shared_rules() -> OperatorRules:
    """The rules of the installed operators."""
    return OperatorRules()


def space_names() -> list[str]:
    """The spaces shipped, in alphabetical order."""
    return sorted(path.stem for path in data_folder("search_spaces").glob("*.yaml"))


def load_named_space(name: str) -> Space:
    """A shipped space by name, read once, or the space of a file by its path, read at every call."""
    return Space.load(name, shared_rules()) if name.endswith((".yaml", ".yml")) else _shipped(name)


@cache
def _shipped(name: str) -> Space:
    names = space_names()
    if name not in names:
        raise InputError("unknown space (a shipped name, or a .yaml file)", value=name, nearest=nearest(name, names))
    return Space.load(data_folder("search_spaces") / f"{name}.yaml", shared_rules())
