"""Accuracy estimators, one a file: what turns an architecture into a figure by which networks are ranked.

A file of this folder that holds a class derived from `nas.accuracy.base.Estimator` is an estimator, named as the file.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING

from nas.core.errors import InputError, nearest
from nas.core.kinds import modules_of

if TYPE_CHECKING:
    from nas.accuracy.base import Estimator


@cache
def estimators() -> dict[str, type[Estimator]]:
    """Name to class of every estimator, in alphabetical order. Imports torch."""
    from nas.accuracy.base import Estimator

    found: dict[str, type[Estimator]] = {}
    for name, module in modules_of(__name__, __file__).items():
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Estimator) and value.__module__ == module.__name__
        ]
        classes = [cls for cls in classes if not inspect.isabstract(cls)]
        if len(classes) > 1:
            names = [cls.__name__ for cls in classes]
            raise InputError("a file holds one estimator", value=names, place=str(module.__file__))
        if classes:
            found[name] = classes[0]
    return found


def estimator(name: str) -> type[Estimator]:
    """An estimator's class by name."""
    known = estimators()
    if name not in known:
        raise InputError("unknown accuracy estimator", value=name, nearest=nearest(name, known))
    return known[name]
