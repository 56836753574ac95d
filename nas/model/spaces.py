"""Spaces by name: the files in search_spaces, or a file of one's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.core.yamlfile import load_yaml
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
    return Space.load(name, shared_rules()) if _is_file(name) else _shipped(name)


def space_document(name: str, **values: int | None) -> dict[str, Any]:
    """The document of a space, for other data: with these `classes`, `channels`, `input` in place of the file's own."""
    path = name if _is_file(name) else str(_file_of(name))
    document = load_yaml(path)
    if not isinstance(document, dict):
        raise InputError("a space is a mapping of keys to values", place=path)
    return {**document, **{key: value for key, value in values.items() if value is not None}}


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


@cache
def _shipped(name: str) -> Space:
    return Space.load(_file_of(name), shared_rules())


def _file_of(name: str) -> Path:
    names = space_names()
    if name not in names:
        raise InputError("unknown space (a shipped name, or a .yaml file)", value=name, nearest=nearest(name, names))
    return data_folder("search_spaces") / f"{name}.yaml"
