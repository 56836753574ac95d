"""Write the generated tables of README.md and docs/ anew, between their markers `<!-- generated: NAME -->`."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HELP = "write the generated tables of README.md and docs/"
PAGES = ("operators", "reference", "latency", "training", "search", "report", "export")
FILES = ("README.md", *(f"docs/{page}.md" for page in PAGES))
_MARK = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; say which files are not current")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The files that changed (or, with --check, that would)."""
    root = Path(__file__).resolve().parents[2]
    changed = []
    for name in FILES:
        path = root / name
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            changed.append(name)
            if not options.check:
                path.write_text(new, encoding="utf-8")
    return {"changed": changed, "checked_only": options.check}


def renewed(text: str) -> str:
    """The text with every generated part made anew."""
    return _MARK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[4]}", text)


def bench_help() -> str:
    """The command line of the benchmarks."""
    from nas.benching import benchmarks

    rows = [[f"`python -m nas.bench {name}`", module.HELP] for name, module in benchmarks().items()]
    return _markdown(["command", "what it measures"], rows)


def spaces() -> str:
    """Every shipped space with its exact size."""
    from nas.model.spaces import load_named_space, space_names

    rows = []
    for name in space_names():
        space = load_named_space(name)
        layouts = space.template.layouts.values()
        blocks = [block for layout in layouts for stage in layout.stages for block in stage.blocks]
        mixers = {spec.name for block in blocks for spec in block.mixer} - {"none"}
        side = " or ".join(map(str, space.template.input))
        rows.append([f"`{name}`", f"{side} px", len(mixers), f"{space.size:.1e}"])
    return _markdown(["space", "input", "mixers", "networks"], rows)


def operators() -> str:
    """Every operator by kind."""
    from nas.benching.operators import needs, paper
    from nas.ops.catalogue import catalogue, knob_defaults

    sections = []
    kinds: dict[str, list[list[str]]] = {}
    for kind, name, cls in catalogue().every():
        knobs = ", ".join(knob_defaults(cls)) or "-"
        kinds.setdefault(kind, []).append([f"`{name}`", knobs, "; ".join(needs(cls)) or "-", paper(cls)])
    for kind, rows in kinds.items():
        sections.append(f"### {kind} ({len(rows)})\n\n" + _markdown(["name", "knobs", "needs", "paper"], rows))
    return "\n\n".join(sections)


def operator_counts() -> str:
    """How many operators of each kind."""
    from nas.ops.catalogue import catalogue

    kinds: dict[str, list[str]] = {}
    for kind, name, _ in catalogue().every():
        kinds.setdefault(kind, []).append(f"`{name}`")
    return _markdown(["kind", "number", "operators"], [[k, len(names), ", ".join(names)] for k, names in kinds.items()])


def references() -> str:
    """Every reference network with its exact counts and published figures."""
    from nas.model.costs import Costs
    from nas.model.reference import figures, load_reference, reference_names

    rows = []
    for name in reference_names():
        reference = load_reference(name)
        cost = Costs().cost(reference.architecture)
        off = f"off: {'; '.join(f'{key} ({why})' for key, why in reference.off.items())}" if reference.off else ""
        agree = "yes" if all(figure.holds for figure in figures(reference)) else "NO"
        rows.append(
            [
                f"`{name}`",
                f"{cost.params:,}",
                reference.params_m or "-",
                f"{cost.macs:,}",
                reference.gmacs or "-",
                reference.top1 or "-",
                f"`{reference.timm}`" if reference.timm else "-",
                "; ".join(part for part in (agree, off and f"published figure {off}", reference.note) if part),
            ]
        )
    head = ["network", "params", "published M", "MACs", "published G", "published top-1", "equal to timm's", "agrees"]
    return _markdown(head, rows)


def flags(door: str) -> str:
    """The command line of a door."""
    parser = importlib.import_module(f"nas.{door}").parser()
    rows = []
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and action.dest != "help":
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            named = action.option_strings[0] + value if action.option_strings else str(action.metavar or action.dest)
            rows.append([f"`{named}`", action.help])
    return _markdown(["flag", "meaning"], rows)


def keys(model: Any, before: str = "") -> str:
    """Every key of a configuration with its value where nothing is told."""
    return _markdown(["key", "default"], [[f"`{key}`", f"`{value}`"] for key, value in _keys(model, before)])


def _keys(model: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from _keys(type(default), f"{before}{name}.")
        else:
            yield before + name, "required" if field.is_required() else json.dumps(default)


def train_keys() -> str:
    """Of nas.train."""
    from nas.training.config import TrainConfig

    return keys(TrainConfig)


def search_keys() -> str:
    """Of nas.search."""
    from nas.searching.config import SearchConfig

    return keys(SearchConfig)


def estimators() -> str:
    """Every estimator of accuracy."""
    from nas.accuracy import estimators

    rows = [[f"`{name}`", cls.kind, cls.unit, cls.about] for name, cls in estimators().items()]
    return _markdown(["name", "kind", "unit", "what it is"], rows)


def export_targets() -> str:
    """Every target of export."""
    from nas.exporting.targets import targets

    rows = [
        [f"`{name}`", module.about, ", ".join(module.PACKAGES) or "-", f"{module.TOLERANCE:g}"]
        for name, module in targets().items()
    ]
    return _markdown(["target", "what it writes", "needs", "tolerance"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "bench": bench_help,
    "spaces": spaces,
    "operators": operators,
    "operator_counts": operator_counts,
    "references": references,
    "train_flags": partial(flags, "train"),
    "search_flags": partial(flags, "search"),
    "measure_flags": partial(flags, "measure"),
    "report_flags": partial(flags, "report"),
    "export_flags": partial(flags, "export"),
    "export_targets": export_targets,
    "train_keys": train_keys,
    "search_keys": search_keys,
    "estimators": estimators,
}


def _markdown(head: list[str], rows: list[list[Any]]) -> str:
    from nas.reporting.text import markdown_table

    return markdown_table(head, rows)


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    if not result["changed"]:
        return "all generated tables are current"
    return ("not current: " if result["checked_only"] else "written: ") + ", ".join(result["changed"])
