"""Needs: what a shaped piece of source refers to, and what a function binds itself."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache

from nas.exporting.source.files import Definition, External


@dataclasses.dataclass
class Needs:
    """What a shaped text refers to."""

    definitions: set[Definition] = dataclasses.field(default_factory=set)
    externals: set[External] = dataclasses.field(default_factory=set)
    made: set[Definition] = dataclasses.field(default_factory=set)  # named where a value is wanted
    attributes: set[str] = dataclasses.field(default_factory=set)  # of anything
    own: set[str] = dataclasses.field(default_factory=set)  # of self
    keywords: set[str] = dataclasses.field(default_factory=set)  # of calls that make or change a token state
    strings: set[str] = dataclasses.field(default_factory=set)
    locals: set[str] = dataclasses.field(default_factory=set)
    loads: set[str] = dataclasses.field(default_factory=set)
    site: set[str] = dataclasses.field(default_factory=set)  # fields read of the argument `site`; "*" for all
    double: bool = False

    def add(self, other: Needs) -> None:
        for field in dataclasses.fields(self):
            if field.name == "double":
                self.double |= other.double
            else:
                getattr(self, field.name).update(getattr(other, field.name))


@cache
def local_names(node: ast.FunctionDef) -> frozenset[str]:
    """Names that are bound within a function."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    return frozenset(names | {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef) and n is not node})
