"""Pictures of fronts: what each row is shown as, and the file."""

from functools import partial

import numpy as np
import pytest

from nas.core.errors import InputError
from nas.reporting.plot_canvas import rendered
from nas.reporting.plots import DOMINATED, FRONT, INFEASIBLE, Axis, draw_pareto, named, picture
from tests.reporting.pictures import coloured, pixels, svg_texts

LATENCY = Axis("latency_ms", "latency, ms", "minimize", spread="latency_spread_ms")
ACCURACY = Axis("accuracy", "accuracy, %", "maximize", spread="sigma")
ROWS = [
    {"latency_ms": 5.0, "accuracy": 80.0, "latency_spread_ms": 0.2, "sigma": 0.5},
    {"latency_ms": 3.0, "accuracy": 70.0, "sigma": None},
    {"latency_ms": 4.0, "accuracy": 60.0, "latency_spread_ms": -1.0},
    {"latency_ms": 1.0, "accuracy": 90.0, "excess": 0.3},
    {"latency_ms": None, "accuracy": 90.0},
    {"latency_ms": 2.0, "accuracy": float("nan")},
]


def drawn(rows: list, x: Axis = LATENCY, y: Axis = ACCURACY, form: str = "png", title: str = "") -> bytes:
    return rendered(partial(draw_pareto, shown={"one": picture(rows, x, y)}, x=x, y=y, title=title), form)


def test_what_each_row_is_shown_as() -> None:
    shown = picture(ROWS, LATENCY, ACCURACY)
    assert shown.kinds == (FRONT, FRONT, DOMINATED, INFEASIBLE) and shown.left_out == 2
    assert shown.of(FRONT).tolist() == [1, 0]  # from left to right
    assert shown.x_bar.tolist() == [0.2, 0, 0, 0] and shown.y_bar.tolist() == [0.5, 0, 0, 0]
    turned = picture(ROWS, Axis("latency_ms", "", "maximize"), Axis("accuracy", "", "minimize"))
    assert turned.kinds == (FRONT, DOMINATED, FRONT, INFEASIBLE)


def test_a_log_axis_shows_what_is_above_zero() -> None:
    rows = [{"macs": 0.0, "accuracy": 1.0}, {"macs": 10.0, "accuracy": 0.5}]
    assert picture(rows, Axis("macs", "MACs", "minimize"), ACCURACY).left_out == 0
    log = Axis("macs", "MACs", "minimize", log=True)
    assert picture(rows, log, ACCURACY).left_out == 1
    assert pixels(drawn(rows, log)).shape == (780, 1050, 3)


def test_the_picture_shows_the_front() -> None:
    with_front, without = pixels(drawn(ROWS)), pixels(drawn([{**row, "excess": 1.0} for row in ROWS]))
    assert with_front.shape == without.shape == (780, 1050, 3)
    assert coloured(with_front, "#D55E00") > 200 > coloured(without, "#D55E00") == 0
    limited = Axis("latency_ms", "latency, ms", "minimize", limit=3.5)
    assert coloured(pixels(drawn(ROWS, limited)), "#333333") > coloured(with_front, "#333333")


def pale(image: np.ndarray) -> int:
    """How many pixels have the front's colour, but lighter, as its error bars are."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return int(((red > 0.85) & (green > 0.55) & (blue < 0.75)).sum())


def test_error_bars_are_drawn_and_told() -> None:
    wide = [{**row, "sigma": 5.0} for row in ROWS]
    bare = Axis("accuracy", "accuracy, %", "maximize")
    without = Axis("latency_ms", "latency, ms", "minimize")
    plain, barred = pixels(drawn(wide, without, bare)), pixels(drawn(wide))
    assert pale(barred) > pale(plain) + 300
    told = svg_texts(drawn(wide, form="svg"))
    assert "bars: one standard deviation; 2 networks without a value are not shown" in told
    assert not any("bars" in text for text in svg_texts(drawn(wide, without, bare, "svg")))


def test_runs_are_told_apart_by_name() -> None:
    other = [{**row, "accuracy": 65.0} for row in ROWS[:3]]
    shown = {name: picture(rows, LATENCY, ACCURACY) for name, rows in (("one", ROWS), ("$two$ & <b>", other))}
    draw = partial(draw_pareto, shown=shown, x=LATENCY, y=ACCURACY)
    assert {"one (2)", "$two$ & <b> (1)"} <= set(svg_texts(rendered(draw, "svg")))
    image = pixels(rendered(draw))
    assert coloured(image, "#0072B2") > 100 and coloured(image, "#D55E00") > 50


def test_an_axis_says_where_better_is() -> None:
    assert named(Axis("macs", "work", "minimize")) == "work, less is better"
    assert named(Axis("macs", "work\nestimated", "maximize")) == "work, more is better\nestimated"
    assert {"latency, ms, less is better", "accuracy, %, more is better"} <= set(svg_texts(drawn(ROWS, form="svg")))


def test_the_same_rows_are_the_same_bytes() -> None:
    one, two = (drawn(ROWS, title="$digits$ under 5 ms") for _ in range(2))
    assert one == two


def test_nothing_to_show_and_bad_axes() -> None:
    assert pixels(drawn([])).shape == (780, 1050, 3)
    assert "_{^ $" in svg_texts(drawn([{"accuracy": 1.0}], form="svg", title="_{^ $"))
    with pytest.raises(InputError, match="unknown direction"):
        picture(ROWS, Axis("latency_ms", "", "down"), ACCURACY)


def test_many_points_stay_a_small_file() -> None:
    draw = np.random.default_rng(0)
    rows = [{"latency_ms": x, "accuracy": -x - y} for x, y in draw.random((5000, 2)).tolist()]
    assert drawn(rows[:1000], form="svg").count(b"<use") > 1000
    assert drawn(rows, form="svg").count(b"<use") < 200, "they are pixels"
