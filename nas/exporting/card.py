"""Card: the README.md of an export: what the network is, its figures and how each is known, where it comes from, and
how every target in the folder is used.

Nothing in it depends on when or how fast it was written: the same export has the same card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.exporting.subject import Subject
from nas.exporting.targets import target
from nas.model.outline import outline
from nas.reporting.finished import SIGMA
from nas.reporting.text import markdown_table

RANDOM = "**Random weights: nothing was trained. The network answers nothing sensible until it is.**"
COLUMNS = ("stage", "embed", "mixer", "feedforward", "reduction", "exit", "width", "tokens", "left")
HEADINGS = ("stage", "embedding", "mixer", "feed-forward", "reduction", "exit", "width", "tokens in", "tokens out")
WORDS = {
    "run": "run",
    "command": "made by",
    "seed": "seed",
    "created": "begun",
    "code": "code (commit)",
    "machine": "machine",
    "budget": "budget",
    "architecture": "architecture",
    "weights": "weights",
    "weights_command": "trained by",
    "batch_norms": "batch norms",
    "made_for": "made for",
}

FILES = """\
manifest.json has the size and the SHA-256 of every file; `python -m nas.export --check FOLDER` compares them. It finds
damage and additions, and is no signature. architecture.yaml is the network and model.safetensors its weights, which
`nas.exporting.reading.read_network(FOLDER)` makes one again. No file here is a pickle, and none is ever unpickled.
"""

Differences = Mapping[str, float]  # of every target's outputs from the network's


def card(subject: Subject, differences: Differences) -> str:
    """The text in Markdown. Its licence is left to whoever publishes it."""
    architecture, source = subject.architecture, subject.source
    heads = [f"# {subject.name}", ""] + ([] if subject.trained else [RANDOM, ""])
    what = (
        f"A vision transformer of {len(architecture.blocks)} blocks in {len(architecture.stages)} stage(s), found or "
        f"trained with nas: {architecture.channels} x {architecture.input} x {architecture.input} images to "
        f"{architecture.classes} classes. Architecture {architecture.digest}."
    )
    if source.get("data"):
        what += f"\n{_images(source['data'])}"
    rows = [[_cell(row[key]) for key in COLUMNS] for row in outline(architecture)]
    told = [[words, f"`{source[key]}`"] for key, words in WORDS.items() if source.get(key) not in (None, "")]
    parts = [
        *heads,
        what,
        "\n## Blocks\n",
        markdown_table(HEADINGS, rows),
        "\n## Figures\n",
        markdown_table(("figure", "value", "how it is known"), figures(subject)),
        "\n## Where it comes from\n",
        markdown_table(("what", "value"), told),
        "\n## Use\n",
        *[_usage(subject, name, apart) for name, apart in differences.items()],
        "## Files\n",
        FILES,
        "## Licence\n",
        "Not stated: whoever publishes these weights chooses it, with a view to the licence of their training data.",
        "",
    ]
    return "\n".join(parts)


def figures(subject: Subject) -> list[tuple[str, str, str]]:
    """(figure, value with its uncertainty, how it is known) of whatever is known."""
    found, known, source = [], subject.figures, subject.source
    device = source.get("target", "")
    estimated = f"{source.get('accuracy', 'unknown')}"
    if known.get("accuracy") is not None:
        unit = source.get("unit", "")
        how = estimated if "split" in estimated else f"estimated by `{estimated}` in the search"
        found.append(("accuracy", f"{_spread(known, 'accuracy', '.2f')} {unit}".strip(), how))
    if known.get("test_accuracy") is not None:
        found.append(("accuracy, test", f"{known['test_accuracy']:.2f} top-1 %", "the test split, with these weights"))
    if known.get("latency_ms") is not None:
        value = f"{_spread(known, 'latency_ms', '.3f')} ms"
        found.append(("latency, estimated", value, f"`{device}`, {source.get('latency', '')}"))
    if known.get("measured_ms") is not None:
        value = f"{known['measured_ms']:.3f} ms (95 %: {known['measured_low']:.3f} to {known['measured_high']:.3f})"
        found.append(("latency, measured", value, f"`{device}`, at the end of the search"))
    found.append(("multiply-accumulates", f"{known['macs']:,}", "formula, exact"))
    found.append(("parameters", f"{known['params']:,}", "formula, exact"))
    if known.get("memory_mb") is not None:
        found.append(("memory", f"{known['memory_mb']:.1f} MB", "formula: weights and largest working set"))
    if known.get("peak_mb") is not None:
        found.append(("memory, peak", f"{known['peak_mb']:.1f} MB", f"`{device}`, measured at the end of the search"))
    return found


def _spread(known: Mapping[str, Any], key: str, form: str) -> str:
    sigma = known.get(key + SIGMA)
    return f"{known[key]:{form}}" if sigma is None else f"{known[key]:{form}} ± {sigma:{form}} (standard deviation)"


def _usage(subject: Subject, name: str, apart: float) -> str:
    module = target(name)
    as_ours = f"within {apart:.1e} of the network's" if apart else "the network's own, bit for bit"
    about = f"{module.about[0].upper()}{module.about[1:]}. Outputs, checked when it was written: {as_ours}."
    return f"### {name}\n\n{about}\n\n```python\n{module.usage(subject.name).rstrip()}\n```\n"


def _images(data: Mapping[str, Any]) -> str:
    if "mean" not in data:
        return f"Trained on {data['name']}: images come normalised as that data has them."
    mean, deviation = (", ".join(f"{value:.3f}" for value in data[key]) for key in ("mean", "std"))
    return f"Trained on {data['name']}: images from 0 to 1, less a mean of ({mean}), over a deviation of ({deviation})."


def _cell(value: object) -> str:
    return f"`{value}`" if isinstance(value, str) and value else str(value)
