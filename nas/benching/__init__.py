"""Benchmarks, one a file: each measures one thing and returns one JSON document.

A benchmark's module has HELP, add_arguments(parser), run(options) -> document, and table(document) -> text.
"""

from __future__ import annotations

from types import ModuleType

from nas.core.kinds import modules_of


def benchmarks() -> dict[str, ModuleType]:
    """Name to module of every benchmark; a module imports nothing heavy until it runs."""
    return modules_of(__name__, __file__)
