"""Written: everything of a report in a folder: the page, the pictures, the tables.

All files are made first, beside the folder's own, and only then put in their places: what cannot be drawn or does not
fit on the disk leaves an earlier report as it was. Pictures that the runs have nothing for are left out; those that an
earlier report had and this one has not are removed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from nas.core.errors import InputError
from nas.core.runs import sync_folder, write_whole
from nas.reporting.choices import choice_table, importance, varying
from nas.reporting.compared import along, axis, check_comparable, flat, labels, objectives, title
from nas.reporting.finished import Finished
from nas.reporting.front_tables import front_csv, front_latex
from nas.reporting.page import write_page
from nas.reporting.plot_canvas import COLUMN, FORMATS, PAGE, Draw, check_formats, rendered
from nas.reporting.plot_cube import cube, draw_cube
from nas.reporting.plot_operators import draw_shares, operator_shares
from nas.reporting.plot_parallel import Lines, draw_lines, lines
from nas.reporting.plot_predicted import draw_pairs, estimated, pairs
from nas.reporting.plot_progress import draw_progress, progress
from nas.reporting.plots import draw_pareto, picture

FOLDER = "report"  # within a run's folder
PAGE_FILE, CSV_FILE, LATEX_FILE = "report.html", "front.csv", "front.tex"
PICTURES = ("pareto", "pareto_3d", "parallel", "predicted", "operators", "hypervolume")
MAX_CHOICES = 6  # scales of parallel coordinates beside the objectives: those that matter most

Size = tuple[float, float]  # inches


def write_report(
    runs: Sequence[Finished], folder: str | os.PathLike[str], formats: Sequence[str] = ("png",)
) -> dict[str, Path]:
    """Write the report of a run, or of several in one; the files by name."""
    check_comparable(runs)
    check_formats(formats)
    place = Path(folder)
    drawn = pictures(runs)
    with _staging(place) as staged:
        write_page(staged / PAGE_FILE, runs)
        for name, (draw, size) in drawn.items():
            for form in dict.fromkeys(formats):
                write_whole(staged / f"{name}.{form}", rendered(draw, form, size))
        write_whole(staged / CSV_FILE, front_csv(runs))
        write_whole(staged / LATEX_FILE, front_latex(runs))
        made = sorted(path.name for path in staged.iterdir())
        for name in made:
            os.replace(staged / name, place / name)
        for name in {f"{name}.{form}" for name in PICTURES for form in FORMATS} - set(made):
            (place / name).unlink(missing_ok=True)
        sync_folder(place)
    order = [PAGE_FILE, *(f"{name}.{form}" for name in drawn for form in FORMATS), CSV_FILE, LATEX_FILE]
    return {name: place / name for name in order if name in made}


def pictures(runs: Sequence[Finished]) -> dict[str, tuple[Draw, Size]]:
    """What there is to draw, by name: the data is taken now, the drawing is left to be done in each format."""
    names = objectives(runs)
    rows = {name: flat(run) for name, run in zip(labels(runs), runs, strict=True)}
    up, across = _pair(names)
    x, y = axis(runs, across), axis(runs, up)
    fronts = {name: picture(own, x, y) for name, own in rows.items()}
    found: dict[str, tuple[Draw, Size]] = {
        "pareto": (partial(draw_pareto, shown=fronts, x=x, y=y, title=title(runs)), (COLUMN, 2.7))
    }
    if len(names) == 3:
        axes = [axis(runs, name) for name in (names[1], names[2], names[0])]
        cubes = {name if len(runs) > 1 else "": cube(own, axes) for name, own in rows.items()}
        found["pareto_3d"] = partial(draw_cube, shown=cubes, axes=axes, title=title(runs)), (COLUMN, 3.2)
    if len(runs) == 1 and runs[0].rows:
        found["parallel"] = partial(draw_lines, shown=_lines(runs[0], up, across), title=title(runs)), (PAGE, 3.2)
    if measured := pairs(runs):
        found["predicted"] = partial(draw_pairs, shown=measured, estimate=estimated(runs)), (COLUMN, 3.4)
    if shares := operator_shares(runs, along(names)):
        height = 0.8 + 1.7 * len(shares)
        found["operators"] = partial(draw_shares, shown=shares, runs=runs, cost=along(names)), (PAGE, height)
    if (curves := progress(runs)) is not None:
        found["hypervolume"] = partial(draw_progress, shown=curves), (COLUMN, 2.4)
    return found


def _pair(names: Sequence[str]) -> tuple[str, str]:
    """The objectives of the picture in two dimensions, up and across; a cost where there is one objective or none."""
    known = [*names, *(name for name in ("accuracy", "macs", "params") if name not in names)]
    return known[0], known[1]


def _lines(run: Finished, up: str, across: str) -> Lines:
    """The choices that matter most for the first objective, in the order of a network, and the objectives."""
    table = varying(choice_table(run.rows))
    weights = importance(table, [row.get(up) for row in run.rows])
    best = {name for name, _ in weights[:MAX_CHOICES]}
    chosen = {re.sub(r"^(\d+) ", r"stage \1 ", name): column for name, column in table.items() if name in best}
    keys = run.objectives if len(run.objectives) > 1 else (up, across)
    return lines(flat(run), chosen, [axis([run], key) for key in keys])


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """A folder within, gone in the end; InputError where there can be none."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=place) as staged:
            yield Path(staged)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"the report cannot be written ({reason})", place=str(place)) from error
