"""Kinds: modules of a folder, one a file, found by their names; and what they need to be installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


def modules_of(package: str, file: str) -> dict[str, ModuleType]:
    """Name to module of every file beside a package's own `file`, but those that begin with an underscore."""
    names = sorted(path.stem for path in Path(file).parent.glob("[!_]*.py"))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}


def lacking(packages: Iterable[str]) -> tuple[str, ...]:
    """Those of some packages (import names) that are not installed."""
    return tuple(package for package in packages if importlib.util.find_spec(package) is None)
