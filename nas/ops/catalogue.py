"""Discovery of operators by folder. There is no list to register in: a file in `nas/ops/<kind>s/` is an operator.

Folders named in the environment variable NAS_OPERATORS (same layout: `<folder>/mixers/mine.py`) are walked as well, so
that a user's own operators need no change here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from nas.core.errors import InputError, nearest
from nas.core.knobs import Maybe, Real
from nas.core.spec import Spec, parse_choices
from nas.ops.base import KINDS, Operator

_KNOB_DEFAULTS: dict[type[Operator], dict[str, Any]] = {}
CONTEXT = ("dim", "classes")  # constructor arguments that come from the stage or the network, not from the file


class Catalogue:
    """All operators by kind and name, loaded when first asked for."""

    def __init__(self, extra: Sequence[Path] = ()):
        self._files: dict[str, dict[str, Path]] = {}
        for folder, base in KINDS.items():
            found: dict[str, Path] = {}
            for root in (Path(__file__).parent, *extra):
                for path in sorted((root / folder).glob("[!_]*.py")):
                    if path.stem in found:
                        raise InputError("an operator's name is unique in its kind", value=path.stem, place=str(path))
                    found[path.stem] = path
            self._files[base.kind] = found
        self._loaded: dict[tuple[str, str], type[Operator]] = {}

    def names(self, kind: str) -> list[str]:
        """The operators of a kind, in alphabetical order."""
        return sorted(self._files[kind])

    def get(self, kind: str, name: str) -> type[Operator]:
        """The class of an operator."""
        made = self._loaded.get((kind, name))
        if made is None:
            if name not in self._files[kind]:
                names = [*self.names(kind), "none"]
                raise InputError(f"unknown {kind}", value=name, nearest=nearest(name, names))
            made = self._loaded[kind, name] = _operator_of(_module(self._files[kind][name]), kind)
        return made

    def every(self) -> list[tuple[str, str, type[Operator]]]:
        """(kind, name, class) of all operators."""
        return [(kind, name, self.get(kind, name)) for kind in self._files for name in self.names(kind)]

    def specs(self, kind: str, text: str, place: str) -> list[Spec]:
        """The canonical specs of a string: known operator, known knobs, legal values, defaults dropped."""
        made = []
        for spec in parse_choices(text, place):
            try:
                made.append(self.canonical(kind, spec))
            except InputError as error:
                raise error.with_place(place) from error.__cause__
        return made

    def canonical(self, kind: str, spec: Spec) -> Spec:
        """The spec with legal values and without defaults."""
        if spec.name == "none" and not spec.knobs:
            return spec
        cls = self.get(kind, spec.name)
        defaults, knobs = knob_defaults(cls), {}
        for name, value in spec.knobs:
            if name not in defaults:
                raise InputError(f"unknown knob of {spec.name}", value=name, nearest=nearest(name, list(defaults)))
            domain = cls.knobs[name]
            if value is None and not domain.holds(None):
                value = "none"  # a knob whose choices are words may have the word none
            if not domain.holds(value):
                raise InputError(f"{spec.name}: {name} is {domain.describe()}", value=value)
            if isinstance(domain, Real) or (isinstance(domain, Maybe) and isinstance(domain.inner, Real)):
                value = None if value is None else float(value)
            if value != defaults[name] or type(value) is not type(defaults[name]):
                knobs[name] = value
        for name, default in defaults.items():
            if default is inspect.Parameter.empty and name not in knobs:
                raise InputError(f"{spec.name} needs the knob {name}", value=str(spec))
        whole = defaults | knobs
        idle = set(cls.without_effect(**whole))
        idle |= {"eps"} if whole.get("norm") == "none" else set()
        idle |= {"ratio"} if whole.get("hidden") is not None and "ratio" in whole else set()
        knobs = {name: value for name, value in knobs.items() if name not in idle}
        return Spec(spec.name, **knobs)


def knob_defaults(cls: type[Operator]) -> dict[str, Any]:
    """Knob to default, from the constructor's keyword-only arguments (inspect's `empty` where there is none)."""
    found = _KNOB_DEFAULTS.get(cls)
    if found is None:
        parameters = inspect.signature(cls.__init__).parameters.values()
        found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in CONTEXT}
        _KNOB_DEFAULTS[cls] = found
    return found


@cache
def catalogue() -> Catalogue:
    """The catalogue of this installation and of the folders in NAS_OPERATORS."""
    named = [Path(p) for p in os.environ.get("NAS_OPERATORS", "").split(os.pathsep) if p]
    for folder in named:
        if not folder.is_dir():
            raise InputError("NAS_OPERATORS names folders", value=str(folder), place="environment")
    return Catalogue(named)


def _module(path: Path) -> ModuleType:
    own = Path(__file__).parent
    if path.is_relative_to(own):
        return importlib.import_module(f"nas.ops.{path.parent.name}.{path.stem}")
    name = f"nas_operators.{path.parent.name}.{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)  # half a module
        raise _import_failure(str(module.__file__), error) from error
    return module


def _import_failure(file: str, error: Exception) -> InputError:
    """What failed on import, at which line of the operator's file, and where else it was raised, if elsewhere."""
    steps = [(step.filename, step.lineno) for step in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        steps.append((error.filename or "", error.lineno))
    steps = [step for step in steps if Path(step[0]).is_file()]  # not those of the machinery of imports
    line = next((line for name, line in reversed(steps) if name == file), None)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    rule = f"an operator's file fails on import: {type(error).__name__}: {textwrap.shorten(said, 300)}"
    if line and steps[-1][0] != file:
        rule += f" (raised at {steps[-1][0]}:{steps[-1][1]})"
    return InputError(rule, place=f"{file}:{line}" if line else file)


def _operator_of(module: ModuleType, kind: str) -> type[Operator]:
    base = next(base for base in KINDS.values() if base.kind == kind)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    place = str(module.__file__)
    if len(classes) != 1:
        raise InputError(f"an operator file holds one {kind} class", value=[c.__name__ for c in classes], place=place)
    cls = classes[0]
    for name in knob_defaults(cls):
        if name not in cls.knobs:
            raise InputError("each constructor knob has its legal values in `knobs`", value=name, place=place)
    return cls
