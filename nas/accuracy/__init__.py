"""Accuracy estimators, one a file: what turns an architecture into a figure by which networks are ranked.

A file of this folder that holds a class derived from `nas.accuracy.base.Estimator` is an estimator, named as the file.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError, nearest

if TYPE_CHECKING:
    from nas.accuracy.base import Estimator


@cache
def estimators() -> dict[str, type[Estimator]]:
    """Name to class of every estimator, in alphabetical order. Imports torch."""
    from nas.accuracy.base import Estimator

    found: dict[str, type[Estimator]] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = importlib.import_module(f"nas.accuracy.{path.stem}")
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Estimator) and value.__module__ == module.__name__
        ]
        classes = [cls for cls in classes if not inspect.isabstract(cls)]
        if len(classes) > 1:
            raise InputError("a file holds one estimator", value=[cls.__name__ for cls in classes], place=str(path))
        if classes:
            found[path.stem] = classes[0]
    return found


def estimator(name: str) -> type[Estimator]:
    """An estimator's class by name."""
    known = estimators()
    if name not in known:
        raise InputError("unknown accuracy estimator", value=name, nearest=nearest(name, known))
    return known[name]
