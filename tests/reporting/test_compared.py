"""What several runs are called, what they share, and what is never shown together."""

from pathlib import Path

import pytest

from nas.core.errors import InputError
from nas.reporting.compared import (
    MAX_NAME,
    along,
    axis,
    by_cost,
    check_comparable,
    flat,
    labels,
    names,
    objectives,
    printable,
    shortened,
    title,
)
from tests.reporting.made_runs import ESTIMATED, finished, row, usual_rows


def test_runs_are_called_by_their_folder_unless_two_are_the_same(tmp_path: Path) -> None:
    runs = [finished(tmp_path / folder, usual_rows()) for folder in ("a/one", "b/one", "two")]
    assert names(runs) == [str(tmp_path / "a/one"), str(tmp_path / "b/one"), "two"]
    assert len(set(labels(runs))) == 3 and all(len(text) <= MAX_NAME + 3 for text in labels(runs))
    twins = [finished(tmp_path / f"{'x' * 20}{i}{'y' * 30}", usual_rows()) for i in range(2)]
    assert len(set(labels(twins))) == 2


def test_names_can_be_shown_whatever_they_are(tmp_path: Path) -> None:
    (name,) = names([finished(tmp_path / "a\nb\x07\udcff<script>", usual_rows())])
    assert name == "a?b??<script>"
    assert printable("größe ✓") == "größe ✓"
    assert shortened("abc", 3) == "abc" and shortened("abcdefghij", 7) == "abcd…ij"


def test_only_what_is_in_one_unit_is_compared(tmp_path: Path) -> None:
    one, two = (finished(tmp_path / name, usual_rows()) for name in ("one", "two"))
    check_comparable([one, two])
    other = finished(tmp_path / "other", usual_rows(), unit="score", accuracy="zen")
    with pytest.raises(InputError, match=r"one unit of accuracy.*'top-1 %'.*'score'"):
        check_comparable([one, other])
    with pytest.raises(InputError, match="each run is given once"):
        check_comparable([one, two, one])
    with pytest.raises(InputError, match="at least one run"):
        check_comparable([])


def test_objectives_are_those_of_all(tmp_path: Path) -> None:
    two = finished(tmp_path / "two", usual_rows())
    three = finished(tmp_path / "three", usual_rows(), ("macs", "accuracy", "latency_ms"))
    assert objectives([three]) == ("macs", "accuracy", "latency_ms")
    assert objectives([three, two]) == ("accuracy", "latency_ms")
    assert along(("accuracy", "params", "macs")) == "params" and along(("accuracy",)) == "macs"
    assert [own["macs"] for own in by_cost(three, "macs")] == sorted(own["macs"] for own in three.front)


def test_an_axis_says_its_unit_and_whether_anybody_measured(tmp_path: Path) -> None:
    known = finished(tmp_path / "known", usual_rows(), budget="20ms", accuracy="supernet")
    guess = finished(tmp_path / "guess", usual_rows(), latency=ESTIMATED)
    assert axis([known], "accuracy").label == "accuracy by supernet (top-1 %)"
    assert axis([known], "latency_ms").label == "latency (ms)"
    assert axis([guess], "latency_ms").label == "latency (ms)\nestimated, not measured"
    assert axis([known, guess], "latency_ms").label == "latency (ms)\nsome estimated, not measured"
    assert axis([known], "latency_ms").limit == 20.0 and axis([known, guess], "latency_ms").limit is None
    assert axis([known], "macs").limit is None and not axis([known], "macs").log
    wide = finished(tmp_path / "wide", [row(0, 50.0, 0.1), row(1, 60.0, 90.0), row(2, 1.0, None)])
    assert axis([wide], "latency_ms").log
    assert title([known]) == "digits on cpu" and title([known, guess]) == ""


def test_the_door_of_latency_says_it_in_these_words() -> None:
    from nas.latency import tables
    from nas.reporting import compared

    assert compared.ESTIMATED == tables.ESTIMATED


def test_rows_have_their_excess_as_a_number(tmp_path: Path) -> None:
    rows = [row(0, 1.0, 1.0), row(1, 1.0, 1.0, over=0.25), row(2, 1.0, 1.0, over=-0.5)]
    assert [own["excess"] for own in flat(finished(tmp_path, rows))] == [0.0, 0.25, 0.0]
