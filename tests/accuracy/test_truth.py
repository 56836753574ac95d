"""Ground truths: what is shipped, what is refused, and the benchmark over them."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nas.accuracy import prior
from nas.accuracy.base import Estimate, Setting
from nas.accuracy.truth import Truth, load_truth, truth_names, write_truth
from nas.bench import main
from nas.benching import _statistics
from nas.benching import estimators as bench
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.model.spaces import load_named_space

HEADER: dict[str, Any] = {
    "about": "imagined",
    "source": "a test",
    "licence": "none",
    "space": "digits",
    "columns": {"one": {"about": "one figure"}, "two": {"about": "another", "kind": "inherited"}},
}


@pytest.fixture(scope="module")
def shipped() -> Truth:
    return load_truth("autoformer_tiny")


@pytest.fixture
def imagined(tmp_path: Path) -> Path:
    """A folder with a truth of three networks."""
    space, chance = load_named_space("digits"), Random(0)
    figures = [(50.5, None), (60.0, 0.0), (70.25, 100.0)]
    write_truth(tmp_path, "imagined", HEADER, [(space.sample(chance), row) for row in figures])
    return tmp_path


def test_the_shipped_truth(shipped: Truth) -> None:
    """As the published rows say: 100 networks of three widths and 12 to 14 blocks, and the first line."""
    space = load_named_space("tiny")
    assert "autoformer_tiny" in truth_names() and len(shipped.architectures) == 100
    assert all(architecture in space for architecture in shipped.architectures)
    assert {a.stages[0].dim for a in shipped.architectures} == {192, 216, 240}
    assert {len(a.blocks) for a in shipped.architectures} == {12, 13, 14}
    first = shipped.architectures[0]
    heads = [block.mixer.get("heads", 3) for block in first.blocks]
    ratios = [float(block.feedforward.get("ratio", 4.0)) for block in first.blocks]
    assert heads == [4, 4, 3, 4, 3, 3, 4, 4, 3, 3, 3, 4]
    assert ratios == [3.5, 4.0, 3.5, 4.0, 3.5, 3.5, 4.0, 3.5, 4.0, 4.0, 4.0, 3.5]
    assert shipped.figures[0] == (68.66, 76.06, 53.6835, 66.5962, 81.9542, 84.8527, 74.644)
    assert shipped.header.licence == "Apache-2.0"


def options(**changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **changes})


def test_trivial_rows_rank_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kendall's tau with the accuracies after distillation, as others measured it on these networks."""
    monkeypatch.setattr(_statistics, "RESAMPLES", 20)
    result = bench.run(options(only="params", truth="autoformer_tiny"))
    rows = {(t["name"], r["estimator"]): r for t in result["truths"] for r in t["rows"]}
    published = {"params": (0.54, 0.70, 0.31), "macs": (0.56, 0.71, 0.31), "depth_width": (0.76, 0.54, 0.18)}
    for name, taus in published.items():
        for column, tau in zip(("c100_kd", "flower_kd", "chaoyang_kd"), taus, strict=True):
            row = rows[f"autoformer_tiny/{column}", name]
            assert round(row["tau"], 2) == tau and row["tau_low"] <= row["tau"] <= row["tau_high"]
            assert row["trivial"] and row["scored"] == 100 and row["seconds_per_network"] > 0


def test_proxies_stand_beside_the_trivial_ones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(_statistics, "RESAMPLES", 20)
    arguments = ["estimators", "--limit", "4", "--only", "naswot,az_nas", "--side", "32", "--images", "4"]
    arguments += ["--truth", "autoformer_tiny"]
    main([*arguments, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert [t["name"].partition("/")[0] for t in result["truths"]] == ["autoformer_tiny"] * 7
    for truth in result["truths"]:
        rows = {row["estimator"]: row for row in truth["rows"]}
        assert truth["networks"] == 4 and set(rows) == {"params", "macs", "depth_width", "naswot", "az_nas"}
        best = max(row["tau"] for row in rows.values() if row["trivial"] and row["tau"] is not None)
        for row in (rows["naswot"], rows["az_nas"]):
            assert -1 <= row["tau"] <= 1 and not row["trivial"]
            assert row["note"].startswith("beats" if row["tau"] > best else "does not beat")
    assert "does not beat" in bench.table(result) or "beats" in bench.table(result)


def test_an_estimator_that_cannot_run_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statistics, "RESAMPLES", 20)
    result = bench.run(
        options(only="snip", limit=3, side=40, truth="autoformer_tiny")
    )  # 40 pixels are no whole number of patches
    for truth in result["truths"]:
        (row,) = [row for row in truth["rows"] if row["estimator"] == "snip"]
        assert row["tau"] is None and row["scored"] == 0 and "cannot be built for images of 40 pixels" in row["reason"]
    assert "cannot be built" in bench.table(result)


def test_a_prior_has_not_seen_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the truth, by a learned one as well, nor the family of papers."""
    monkeypatch.setattr(_statistics, "RESAMPLES", 20)
    unseen: list[frozenset[str]] = []

    def fitted(without: frozenset[str] = frozenset()) -> prior.Fit:
        unseen.append(without)
        return fit(without)

    fit = prior.prior_fit
    monkeypatch.setattr(prior, "prior_fit", fitted)
    result = bench.run(options(only="prior,learned", limit=10, truth="autoformer_tiny"))
    assert set(unseen) == {frozenset({"autoformer_tiny"})}
    for truth in result["truths"]:
        rows = {row["estimator"]: row for row in truth["rows"]}
        assert rows["prior"]["scored"] == rows["learned"]["scored"] == 10
    unseen.clear()
    bench.run(options(only="prior", limit=4, truth="published"))
    families = dict.fromkeys(bench.subject("published", 4).folds)
    assert unseen == [frozenset({family}) for family in families] and len(families) > 1


class Watched:
    """Learns nothing, but refuses to be asked about what it has observed."""

    def __init__(self, setting: Setting, fit: object):
        self.seen: set[str] = set()

    def observe(self, network: Architecture, accuracy: float) -> None:
        self.seen.add(network.digest)

    def estimate(self, network: Architecture) -> Estimate:
        assert network.digest not in self.seen
        return Estimate(len(self.seen))


def test_what_learns_ranks_networks_that_it_has_not_seen(monkeypatch: pytest.MonkeyPatch, shipped: Truth) -> None:
    monkeypatch.setattr("nas.accuracy.estimator", lambda name: Watched)
    truth = bench.Subject("imagined", list(shipped.architectures[:10]), {}, ["autoformer_tiny"] * 10)
    figures: list[float | None] = [1.0] * 9 + [None]
    scored = bench._learned("watched", truth, figures, options())
    assert set(scored.scores) == set(range(9)) and sorted(set(scored.scores.values())) == [7, 8]
    families = truth._replace(folds=["deit"] * 7 + ["pvt"] * 3)
    by_family = bench._learned("watched", families, figures, options()).scores
    assert [by_family[place] for place in range(9)] == [2] * 7 + [7] * 2


def test_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statistics, "RESAMPLES", 100)
    assert bench.correlation(list(range(12)), list(range(5, 17))) == pytest.approx((1, 1, 1))
    assert bench.correlation([1, 2, 3, 4], [8, 7, 6, 5])[0] == pytest.approx(-1)
    assert bench.correlation([1, 1, 1], [1, 2, 3]) == (None, None, None)
    tau, low, high = bench.correlation([1, 2, 3, 4], [1, 3, 2, 4])  # five pairs agree, one does not
    assert tau == pytest.approx(4 / 6) and low <= tau <= high
    assert bench.correlation([3, 1, 4, 1, 5], [9, 2, 6, 5, 3]) == bench.correlation([3, 1, 4, 1, 5], [9, 2, 6, 5, 3])


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--truth", "autoformer"], "unknown ground truth: 'autoformer' (nearest: autoformer_tiny)"),
        (["--only", "snipe"], "unknown accuracy estimator: 'snipe' (nearest: snip"),
        (["--limit", "2"], "a rank correlation needs 3 networks"),
        (["--images", "1"], "proxies need two images"),
    ],
)
def test_bad_arguments(arguments: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["estimators", *arguments])
    captured = capsys.readouterr()
    assert left.value.code == 2 and told in captured.err and captured.out == ""


def test_written_and_read(imagined: Path) -> None:
    truth = load_truth("imagined", imagined)
    assert truth.columns == ("one", "two") and truth.header.columns["two"].kind == "inherited"
    architectures, figures = truth.known("two")
    assert figures == [0.0, 100.0] and architectures == list(truth.architectures[1:])
    with pytest.raises(InputError, match="unknown column: 'three'"):
        truth.known("three")


def altered(folder: Path, change: Any) -> None:
    """Change the csv's cells and put its checksum right."""
    table, header = folder / "imagined.csv", folder / "imagined.yaml"
    before = hashlib.sha256(table.read_bytes()).hexdigest()
    table.write_text(change(table.read_text()))
    header.write_text(header.read_text().replace(before, hashlib.sha256(table.read_bytes()).hexdigest()))


def test_a_damaged_table_is_refused(imagined: Path) -> None:
    table = imagined / "imagined.csv"
    table.write_text(table.read_text().replace("50.5", "55.5"))
    with pytest.raises(InputError, match="damaged or was altered"):
        load_truth("imagined", imagined)
    table.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_truth("imagined", imagined)


@pytest.mark.parametrize(
    "change, rule",
    [
        (lambda text: text.replace("50.5", "fifty"), "a percentage, or nothing"),
        (lambda text: text.replace("50.5", "nan"), "a percentage, or nothing"),
        (lambda text: text.replace("50.5", "150"), "a percentage, or nothing"),
        (lambda text: text.replace("digest,one", "digest,uno"), "the columns are digest, one, two, architecture"),
        (lambda text: text.replace(",50.5,", ",50.5,,"), "a line has 4 cells"),
        (lambda text: text.replace(text.splitlines()[1][:8], "00000000"), "the digest is not that"),
        (lambda text: text + text.splitlines()[1] + "\n", "each once"),
        (lambda text: "\n".join(text.splitlines()[:3]) + "\n", "3 networks or more"),
        (lambda text: text.replace('"{', '"['), "an architecture is JSON"),
        (lambda text: "", "the columns are"),
    ],
)
def test_a_wrong_table_is_refused(imagined: Path, change: Any, rule: str) -> None:
    altered(imagined, change)
    with pytest.raises(InputError, match=rule):
        load_truth("imagined", imagined)


def test_a_network_outside_the_space_is_refused(imagined: Path) -> None:
    header = imagined / "imagined.yaml"
    header.write_text(header.read_text().replace("space: digits", "space: tiny"))
    with pytest.raises(InputError, match="not in the space tiny"):
        load_truth("imagined", imagined)


@pytest.mark.parametrize("old, new", [("licence", "license"), ("kind: inherited", "kind: guessed")])
def test_a_wrong_header_is_refused(imagined: Path, old: str, new: str) -> None:
    header = imagined / "imagined.yaml"
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"imagined\.yaml"):
        load_truth("imagined", imagined)


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    (architecture,) = [load_named_space("digits").sample(Random(0))]
    with pytest.raises(InputError, match="each once"):
        write_truth(tmp_path, "twice", HEADER, [(architecture, (1.0, 2.0))] * 3)
    assert list(tmp_path.iterdir()) == []
