"""The other pictures: what is shown, against cases by hand; and that it is drawn, of little and of much."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nas.reporting.compared import flat
from nas.reporting.plot_canvas import rendered
from nas.reporting.plot_cube import cube, draw_cube
from nas.reporting.plot_operators import MAX_MIXERS, draw_shares, operator_shares
from nas.reporting.plot_parallel import MAX_KINDS, draw_lines, lines
from nas.reporting.plot_predicted import draw_pairs, estimated, pairs, summary
from nas.reporting.plot_progress import draw_progress, progress
from nas.reporting.plots import Axis
from tests.reporting.made_runs import ESTIMATED, block, finished, row, usual_rows
from tests.reporting.pictures import coloured, pixels, svg_texts

ACCURACY = Axis("accuracy", "accuracy (%)", "maximize")
LATENCY = Axis("latency_ms", "latency (ms)", "minimize")
MACS = Axis("macs", "MACs", "minimize", log=True)


# --- three objectives


def test_the_front_of_three_objectives() -> None:
    rows = [
        {"accuracy": 3.0, "latency_ms": 1.0, "macs": 1e6},  # dominates the next
        {"accuracy": 2.0, "latency_ms": 1.0, "macs": 1e6},
        {"accuracy": 1.0, "latency_ms": 1.0, "macs": 1e5},  # the least macs
        {"accuracy": 9.0, "latency_ms": 9.0, "macs": 1e5, "excess": 0.1},
        {"accuracy": 9.0, "latency_ms": None, "macs": 1e5},
    ]
    shown = cube(rows, [ACCURACY, LATENCY, MACS])
    assert shown.kinds == ("front", "dominated", "front", "infeasible") and shown.left_out == 1
    assert shown.of("front").tolist() == [[3.0, 1.0, 1e6], [1.0, 1.0, 1e5]]
    draw = partial(draw_cube, shown={"": shown}, axes=[ACCURACY, LATENCY, MACS], title="a $b$")
    texts = svg_texts(rendered(draw, "svg"))
    assert {"front (2)", "dominated (1)", "a $b$", "accuracy (%)"} <= set(texts)
    assert coloured(pixels(rendered(draw)), "#D55E00") > 100


@pytest.mark.parametrize("rows", [[], [{"accuracy": 1.0, "latency_ms": 2.0, "macs": 3.0}]])
def test_a_cube_of_hardly_anything(rows: list) -> None:
    shown = cube(rows, [ACCURACY, LATENCY, MACS])
    draw = partial(draw_cube, shown={"one": shown, "two": shown}, axes=[ACCURACY, LATENCY, MACS])
    assert pixels(rendered(draw)).shape == (780, 1050, 3)


# --- parallel coordinates


def test_the_place_of_each_value() -> None:
    rows = [
        {"accuracy": a, "latency_ms": t, "macs": m}
        for a, t, m in ((1.0, 1.0, 1.0), (2.0, 3.0, 10.0), (3.0, 2.0, 100.0))
    ]
    choices = {"width": [32.0, None, 64.0], "head": ["mean", "token", "mean"]}
    shown = lines(rows, choices, [ACCURACY, LATENCY, MACS])
    assert [scale.label for scale in shown.scales] == ["width", "head", "accuracy (%)", "latency (ms)", "MACs"]
    width, head, accuracy, latency, macs = shown.places.T
    assert width[1] == 0 and width[2] == 1 and 0 < width[0] < 0.3, "what has no number stands below the numbers"
    assert [text for _, text in shown.scales[0].ticks] == ["none", "32", "64"]
    assert head[0] > head[1] and head[2] > head[0], "the frequent above the rare; within a text by the first objective"
    assert accuracy.tolist() == [0, 0.5, 1]
    assert latency.tolist() == [1, 0, 0.5], "the best at the top"
    assert macs.tolist() == pytest.approx([1, 0.5, 0])
    assert [(round(height, 2), text) for height, text in shown.scales[4].ticks] == [
        (1.0, "1"),
        (0.5, "10"),
        (0.0, "100"),
    ]


def test_places_are_on_their_scale_whatever_the_values() -> None:
    draw = np.random.default_rng(0)
    rows = [{"accuracy": float(a), "latency_ms": 1.0} for a in draw.normal(size=60)]
    names = [f"name{i % 20}" for i in range(60)]
    mixed = ["+".join(f"m{j}" for j in range(i % 12, 12)) for i in range(60)]
    choices = {"names": names, "mixer": mixed, "same": ["x"] * 60, "nothing": [None] * 60, "number": list(range(60))}
    shown = lines(rows, choices, [ACCURACY, LATENCY])
    assert shown.places.min() >= 0 and shown.places.max() <= 1 and np.isfinite(shown.places).all()
    texts = {scale.label: [text for _, text in scale.ticks] for scale in shown.scales}
    assert len(texts["names"]) == MAX_KINDS and texts["names"][-1] == "other"
    assert set(texts["mixer (mostly)"]) <= {f"m{j}" for j in range(12)} | {"other"}
    assert len(texts["number"]) == 4 and texts["nothing"] == ["none"]


def test_lines_are_drawn(tmp_path: Path) -> None:
    rows = flat(finished(tmp_path, usual_rows()))
    choices = {"1 mixer": ["softmax", "<b>$x$</b>"] * 6, "width": [32.0, 48.0, 64.0] * 4}
    draw = partial(draw_lines, shown=lines(rows, choices, [ACCURACY, LATENCY]), title="digits")
    texts = svg_texts(rendered(draw, "svg", (7.0, 3.0)))
    assert {"softmax", "<b>$x$</b>", "32", "48", "digits"} <= set(texts)
    assert any(text.startswith("front (") for text in texts)
    assert coloured(pixels(rendered(draw, "png", (7.0, 3.0))), "#D55E00") > 300
    nothing = lines([], {"width": []}, [ACCURACY, LATENCY])
    assert pixels(rendered(partial(draw_lines, shown=nothing))).any()


# --- predicted against measured


def test_pairs_and_how_well_they_agree(tmp_path: Path) -> None:
    rows = [row(0, 50.0, 1.0, latency_ms_sigma=0.01), row(1, 60.0, 2.0, latency_ms_sigma=0.5), row(2, 70.0, 4.0)]
    run = finished(tmp_path / "one", rows)  # measured is 10 % more than predicted
    found = pairs([run])
    assert [pair.predicted for pair in found] == [1.0, 2.0, 4.0] and [pair.number for pair in found] == [1, 2, 3]
    assert [pair.covered for pair in found] == [False, True, False]
    assert found[0].error == pytest.approx(0.1 / 1.1)
    assert summary(found) == "3 networks: median error 9.1%, 1 within the predicted 95 % interval"
    assert pairs([finished(tmp_path, rows, measured=False)]) == [] and not estimated([run])
    assert estimated([finished(tmp_path, rows, latency=ESTIMATED)])


def test_pairs_are_drawn_and_an_estimate_says_so(tmp_path: Path) -> None:
    runs = [finished(tmp_path / name, usual_rows()) for name in ("one", "$two$")]
    texts = svg_texts(rendered(partial(draw_pairs, shown=pairs(runs), estimate=True), "svg", (3.5, 3.4)))
    assert {"one", "$two$", "estimated, not measured", "measured latency (ms)"} <= set(texts)
    single = [pair for pair in pairs(runs[:1]) if pair.number == 1]
    assert pixels(rendered(partial(draw_pairs, shown=single))).shape == (780, 1050, 3)


# --- operators along the front


def test_shares_of_blocks_of_each_member(tmp_path: Path) -> None:
    rows = [
        row(0, 50.0, 1.0, ["softmax(heads=2)", "softmax(heads=4)", "window(size=4)", ""]),
        row(1, 60.0, 2.0, ["window(size=8)"]),
    ]
    (shown,) = operator_shares([finished(tmp_path / "one", rows)], "latency_ms")
    assert shown.mixers == ("window", "softmax", "no mixer")
    assert shown.shares.tolist() == [[0.25, 1.0], [0.5, 0.0], [0.25, 0.0]]
    assert shown.numbers == (1, 2) and shown.costs == (1.0, 2.0)
    assert operator_shares([finished(tmp_path, [row(0, 1.0, 1.0, over=1.0)])]) == []


def test_rare_mixers_are_one_and_runs_have_the_same_colours(tmp_path: Path) -> None:
    many = finished(tmp_path / "many", [row(0, 50.0, 1.0, [f"m{i}" for i in range(12) for _ in range(12 - i)])])
    few = finished(tmp_path / "few", [row(0, 50.0, 1.0, ["m0", "m11"])])
    one, two = operator_shares([many, few])
    assert one.mixers == two.mixers and len(one.mixers) == MAX_MIXERS and one.mixers[-1] == "other"
    assert one.shares.sum(axis=0) == pytest.approx([1.0]) and two.shares.sum(axis=0) == pytest.approx([1.0])
    draw = partial(draw_shares, shown=[one, two], runs=[many, few], cost="latency_ms")
    texts = svg_texts(rendered(draw, "svg", (7.0, 4.0)))
    assert {"many", "few", "m0", "other", "member of the front, by latency (ms)"} <= set(texts)


def test_a_member_without_blocks_or_cost_has_no_bar(tmp_path: Path) -> None:
    rows = [{**row(0, 50.0, 1.0), "outline": []}, {**row(1, 60.0, 2.0, ["a"]), "macs": None}]
    (shown,) = operator_shares([finished(tmp_path, rows)], "macs")
    assert shown.shares.sum(axis=0).tolist() == [0.0, 1.0] and shown.costs == (1_000_000, None)
    assert block()["mixer"] == "softmax(heads=2)"


# --- hypervolume


def test_hypervolume_grows_to_the_largest_of_all_runs(tmp_path: Path) -> None:
    good = [row(0, 50.0, 2.0), row(3, 60.0, 1.0), row(4, 99.0, 0.1, over=1.0), row(7, None, 1.0)]
    poor = [row(0, 40.0, 3.0), row(1, 41.0, 2.9)]
    shown = progress([finished(tmp_path / "good", good), finished(tmp_path / "poor", poor)])
    assert shown is not None and [curve.run for curve in shown.curves] == ["good", "poor"]
    one, two = shown.curves
    assert one.trials.tolist() == [1, 4, 5, 8] and one.shares[1:].tolist() == [1.0, 1.0, 1.0]
    # by hand: the reference is a tenth of the extent beyond the worst, 38 % and 3.2 ms
    assert shown.reference == pytest.approx((38.0, 3.2))
    assert one.shares[0] == pytest.approx(12 * 1.2 / (22 * 2.2))
    assert two.shares.tolist() == pytest.approx([2 * 0.2 / (22 * 2.2), 3 * 0.3 / (22 * 2.2)])


def test_hypervolume_is_drawn_where_there_is_any(tmp_path: Path) -> None:
    runs = [finished(tmp_path / name, usual_rows()) for name in ("one", "two")]
    shown = progress(runs)
    assert shown is not None
    texts = svg_texts(rendered(partial(draw_progress, shown=shown), "svg"))
    assert {"one", "two", "networks proposed"} <= set(texts) and any("reference point" in text for text in texts)
    assert progress([finished(tmp_path, [row(0, 1.0, 1.0, over=1.0)])]) is None
    assert progress([finished(tmp_path, [])]) is None
    lone = progress([finished(tmp_path, [row(0, 1.0, 1.0)])])
    assert lone is not None and lone.curves[0].shares.tolist() == [1.0]
    other = finished(tmp_path / "other", usual_rows(), ("params", "macs"))
    assert progress([runs[0], other]) is None


def test_the_limit_is_the_reference_where_all_have_it(tmp_path: Path) -> None:
    run = finished(tmp_path, usual_rows(), budget="20ms")
    assert progress([run]).reference[1] == 20.0  # type: ignore[union-attr]
