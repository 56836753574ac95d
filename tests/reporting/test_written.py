"""A report as files: what there is for which runs, and what is left when it cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from nas.core.errors import InputError
from nas.reporting.finished import open_finished
from nas.reporting.written import pictures, write_report
from tests.reporting.made_runs import ESTIMATED, finished, on_disk, row, usual_rows
from tests.reporting.pictures import pixels, svg_texts

ALWAYS = ["report.html", "pareto.png", "parallel.png", "predicted.png", "operators.png", "hypervolume.png"]
TABLES = ["front.csv", "front.tex"]
FULL = OSError(errno.ENOSPC, "No space left on device")


def state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_report_has_a_page_pictures_and_tables(tmp_path: Path) -> None:
    run = on_disk(tmp_path, "one")
    found = write_report([open_finished(run.path)], tmp_path / "new" / "report")
    assert list(found) == [*ALWAYS, *TABLES]
    assert sorted(found) == sorted(path.name for path in (tmp_path / "new" / "report").iterdir())
    assert all(pixels(path.read_bytes()).std() > 0.01 for name, path in found.items() if name.endswith(".png"))
    assert b"<html" in found["report.html"].read_bytes().lower()


def test_twice_the_same_files_and_others_are_left_alone(tmp_path: Path) -> None:
    run, place = on_disk(tmp_path, "one"), tmp_path / "out"
    place.mkdir()
    (place / "mine.txt").write_text("kept")
    (place / "pareto_3d.pdf").write_text("of an earlier report")
    write_report([run], place, ["svg", "svg"])
    before = state(place)
    write_report([run], place, ["svg"])
    assert state(place) == before and "mine.txt" in before
    assert {name for name in before if name.startswith("pareto")} == {"pareto.svg"}


def test_several_runs_are_in_one_report(tmp_path: Path) -> None:
    runs = [on_disk(tmp_path, name) for name in ("one", "two")]
    found = write_report(runs, tmp_path / "both", ["svg"])
    for picture in ("pareto", "predicted", "operators", "hypervolume"):
        texts = svg_texts(found[f"{picture}.svg"].read_bytes())
        assert any(text.startswith("one") for text in texts) and any(text.startswith("two") for text in texts), picture
    assert found["front.csv"].read_text().count("\ntwo,") == len(runs[1].front)


def test_three_objectives_have_a_third_dimension(tmp_path: Path) -> None:
    run = finished(tmp_path, usual_rows(), ("accuracy", "latency_ms", "params"), latency=ESTIMATED)
    draw, size = pictures([run])["pareto_3d"]
    from nas.reporting.plot_canvas import rendered

    assert {"parameters", "estimated, not measured"} <= set(svg_texts(rendered(draw, "svg", size)))


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([row(0, 50.0, 1.0)], {"pareto", "parallel", "operators", "hypervolume"}),
        ([row(i, 50.0 + i, 1.0, over=1.0) for i in range(3)], {"pareto", "parallel"}),
        ([row(0, None, None, reason="latency: nobody knows")], {"pareto", "parallel"}),
        ([], {"pareto"}),
    ],
)
def test_what_there_is_nothing_for_is_left_out(tmp_path: Path, rows: list, names: set[str]) -> None:
    run = finished(tmp_path / "one", rows, measured=False)
    assert set(pictures([run])) == names
    if len(rows) != 1:
        files = write_report([run], tmp_path / "out")
        assert set(files) == {*TABLES, "report.html", *(f"{name}.png" for name in names)}


def test_one_objective_has_a_picture_too(tmp_path: Path) -> None:
    run = finished(tmp_path, usual_rows(), ("latency_ms",))
    assert {"pareto", "parallel", "hypervolume"} <= set(pictures([run]))


def test_names_do_no_harm(tmp_path: Path) -> None:
    hostile = "</script>$x$ & _%\x01"
    made = finished(tmp_path / hostile.replace("/", "-"), usual_rows(), target=hostile, accuracy=hostile, unit=hostile)
    made.provenance["config"]["space"] = hostile
    made.path.mkdir()
    found = write_report([made], tmp_path / "out", ["svg"])
    title = svg_texts(found["pareto.svg"].read_bytes())
    assert any("</script>$x$ & _%? on" in text for text in title)
    assert r"\textless{}/script\textgreater{}\$x\$ \& \_\%" in found["front.tex"].read_text()


@pytest.mark.parametrize(
    ("failing", "error"), [(1, FULL), (8, FULL), (4, KeyboardInterrupt())], ids=["page", "last table", "interrupted"]
)
def test_an_earlier_report_stays_whole(tmp_path, monkeypatch, failing: int, error: BaseException) -> None:
    place = tmp_path / "out"
    place.mkdir()
    for name in [*ALWAYS, *TABLES]:
        (place / name).write_text(f"{name} of an earlier report")
    before = state(place)
    written = iter(range(1, 100))
    write = os.write

    def full(file: int, data: bytes) -> int:
        if next(written) >= failing:
            raise error
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    other = finished(tmp_path / "other", usual_rows(20))
    with pytest.raises((InputError, KeyboardInterrupt)):
        write_report([other], place)
    monkeypatch.undo()
    assert state(place) == before, "and nothing is left of the new one"


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    run = on_disk(tmp_path, "one")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(InputError, match="the report cannot be written"):
            write_report([run], place)
    with pytest.raises(InputError, match="unknown format"):
        write_report([run], tmp_path / "out", ["gif"])
    assert not (tmp_path / "out").exists()
