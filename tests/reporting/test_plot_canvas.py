"""A picture's file: its size, its texts, the same bytes, and nothing of the user's own settings."""

from functools import cache

import matplotlib
import pytest

from nas.core.errors import InputError
from nas.reporting.plot_canvas import COLORS, DPI, check_formats, note, number_axis, rendered, run_style
from tests.reporting.pictures import pdf_text, pixels, svg_texts

TEXT = "größer_than $x^2$ & <script>alert(1)</script> %"


def draw(figure) -> None:
    axes = figure.add_subplot()
    axes.plot([1, 2, 4000], [1e6, 3e6, 2e6], label=TEXT)
    axes.set_title(TEXT)
    number_axis(axes, "x", "latency_ms", log=True)
    number_axis(axes, "y", "macs")
    axes.legend()
    note(figure, ["first", "", "second"])


@cache
def once(form: str) -> bytes:
    return rendered(draw, form)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_twice_the_same_bytes(form: str) -> None:
    assert rendered(draw, form) == once(form)


def test_texts_stay_texts() -> None:
    shown = svg_texts(once("svg"))
    assert shown.count(TEXT) == 2 and "first; second" in shown
    assert {"1", "10", "100", "1000", "1 M", "3 M"} <= set(shown), shown
    text = pdf_text(once("pdf"))
    assert TEXT.replace(" ", "") in text.replace(" ", "") and "first;second" in text.replace(" ", "")


def test_a_picture_has_its_size() -> None:
    assert pixels(rendered(draw, "png", (3.0, 2.0))).shape == (2 * DPI, 3 * DPI, 3)
    assert b'width="216pt"' in rendered(draw, "svg", (3.0, 2.0))
    assert b"/MediaBox [ 0 0 216 144 ]" in rendered(draw, "pdf", (3.0, 2.0))


def test_no_date_and_no_program_is_in_a_file() -> None:
    assert b"<dc:date>" not in once("svg") and b"CreationDate" not in once("pdf")
    assert b"Software" not in once("png")


def test_a_users_settings_change_nothing_and_are_kept() -> None:
    usual = once("svg")
    with matplotlib.rc_context({"text.usetex": False, "font.size": 30, "figure.facecolor": "red", "svg.hashsalt": "x"}):
        assert rendered(draw, "svg") == usual
        assert matplotlib.rcParams["font.size"] == 30 and matplotlib.rcParams["text.parse_math"]


def test_formats_are_checked() -> None:
    check_formats(["png", "pdf"])
    with pytest.raises(InputError, match="unknown format of pictures: 'jpeg'"):
        check_formats(["png", "jpeg"])
    with pytest.raises(InputError, match="a picture has a format"):
        check_formats([])


def test_runs_look_different() -> None:
    styles = [run_style(i) for i in range(28)]
    assert len(set(styles)) == 28 and len({color for color, _, _ in styles[:7]}) == len(COLORS)
