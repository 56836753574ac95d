"""The card of an export: every figure with how it is known, and nothing that changes from one writing to the next."""

from __future__ import annotations

from nas.exporting.card import card, figures
from nas.exporting.targets import targets
from tests.exporting.networks import plain, pyramid, reducing, subject

ROW = {
    "accuracy": 97.1234,
    "accuracy_sigma": 1.25,
    "latency_ms": 2.5,
    "latency_ms_sigma": 0.125,
    "measured_ms": 2.25,
    "measured_low": 2.125,
    "measured_high": 2.375,
    "memory_mb": 12.5,
    "peak_mb": None,
    "macs": 1234567,
    "params": 89012,
}
SOURCE = {
    "run": "runs/one",
    "command": "python -m nas.search --space digits",
    "seed": 4,
    "accuracy": "supernet",
    "unit": "top-1 %",
    "target": "cpu:onnxruntime:threads=1",
    "latency": "a table of this machine",
    "weights": "runs/w, step 9",
    "weights_command": "python -m nas.train --space digits",
    "data": {"name": "digits"},
}


def test_every_figure_has_its_uncertainty_and_its_origin() -> None:
    found = {name: (value, how) for name, value, how in figures(subject(plain(), figures=ROW, source=SOURCE))}
    assert found["accuracy"] == ("97.12 ± 1.25 (standard deviation) top-1 %", "estimated by `supernet` in the search")
    value, how = found["latency, estimated"]
    assert "2.500 ± 0.125" in value and "a table of this machine" in how
    assert found["latency, measured"][0] == "2.250 ms (95 %: 2.125 to 2.375)"
    assert found["multiply-accumulates"][0] == "1,234,567" and found["parameters"] == ("89,012", "formula, exact")
    assert "12.5 MB" in found["memory"][0] and "memory, peak" not in found
    few = figures(subject(plain()))
    assert [name for name, _, _ in few] == ["multiply-accumulates", "parameters"], "what is not known is not shown"


def test_the_card_says_what_the_network_is_and_where_it_comes_from() -> None:
    text = card(subject(reducing("evit(keep=0.5)"), figures=ROW, source=SOURCE, trained=True), {"timm": 1.5e-6})
    for word in ("`evit(keep=0.5)`", "`softmax(heads=2)`", "exit", SOURCE["command"], SOURCE["weights_command"]):
        assert str(word) in text
    rows = [line for line in text.splitlines() if line.startswith("| 0 |")]
    assert len(rows) == 3 and rows[1].endswith("| 16 | 16 | 9 |") and rows[2].endswith("| 16 | 9 | 6 |")
    assert "within 1.5e-06" in text and "timm.create_model" in text and "Not stated" in text
    assert "andom weights" not in text
    assert text == card(subject(reducing("evit(keep=0.5)"), figures=ROW, source=SOURCE, trained=True), {"timm": 1.5e-6})


def test_random_weights_are_said_at_once() -> None:
    text = card(subject(pyramid()), {})
    assert "Random weights: nothing was trained" in "\n".join(text.splitlines()[:4])


def test_all_targets_are_of_the_contract() -> None:
    for name, module in targets().items():
        assert module.about and "\n" not in module.about and isinstance(module.PACKAGES, tuple), name
        assert 0 <= module.TOLERANCE < 1 and callable(module.write) and callable(module.load), name
        assert module.usage("network").strip(), name
