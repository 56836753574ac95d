"""Pictures of fronts: what each row is shown as, and the file."""

import os
from pathlib import Path

import numpy as np
import pytest

from nas.core.errors import InputError
from nas.reporting.plots import DOMINATED, FRONT, INFEASIBLE, Axis, pareto_png, picture, write_pareto

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
PNG = b"\x89PNG\r\n\x1a\n"


def pixels(data: bytes, folder: Path) -> np.ndarray:
    from matplotlib.image import imread

    (folder / "read.png").write_bytes(data)
    return np.asarray(imread(folder / "read.png"))[..., :3]


def coloured(image: np.ndarray, hexadecimal: str) -> int:
    """How many pixels have about this colour."""
    wanted = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=-1) < 0.04).sum())


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
    assert picture(rows, Axis("macs", "MACs", "minimize", log=True), ACCURACY).left_out == 1
    assert pareto_png(rows, Axis("macs", "MACs", "minimize", log=True), ACCURACY).startswith(PNG)


def test_the_picture_shows_the_front(tmp_path: Path) -> None:
    with_front = pixels(pareto_png(ROWS, LATENCY, ACCURACY), tmp_path)
    without = pixels(pareto_png([{**row, "excess": 1.0} for row in ROWS], LATENCY, ACCURACY), tmp_path)
    assert with_front.shape == without.shape == (720, 1080, 3)
    assert coloured(with_front, "#D55E00") > 200 > coloured(without, "#D55E00") == 0
    limited = Axis("latency_ms", "latency, ms", "minimize", limit=3.5)
    assert coloured(pixels(pareto_png(ROWS, limited, ACCURACY), tmp_path), "#333333") > 100


def test_error_bars_are_drawn(tmp_path: Path) -> None:
    wide = [{**row, "sigma": 5.0} for row in ROWS]
    plain = pixels(pareto_png(wide, LATENCY, Axis("accuracy", "accuracy, %", "maximize")), tmp_path)
    barred = pixels(pareto_png(wide, LATENCY, ACCURACY), tmp_path)
    assert (barred < 0.95).any(axis=-1).sum() > (plain < 0.95).any(axis=-1).sum()


def test_the_same_rows_are_the_same_file_and_the_file_is_whole(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        write_pareto(tmp_path / name, ROWS, LATENCY, ACCURACY, title="$digits$ under 5 ms")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.png", "two.png"]
    with pytest.raises(InputError, match="cannot be written"):
        write_pareto(tmp_path / "none" / "front.png", ROWS, LATENCY, ACCURACY)


def test_nothing_to_show_and_bad_axes() -> None:
    assert pareto_png([], LATENCY, ACCURACY).startswith(PNG)
    assert pareto_png([{"accuracy": 1.0}], LATENCY, ACCURACY, title="_{^").startswith(PNG)
    with pytest.raises(InputError, match="two different axes"):
        pareto_png(ROWS, LATENCY, LATENCY)
    with pytest.raises(InputError, match="unknown direction"):
        pareto_png(ROWS, Axis("latency_ms", "", "down"), ACCURACY)
