"""Canvas: from what a picture draws to the bytes of its file, the same for the same data and the same matplotlib.

Nothing outside is read or changed: no pyplot, and a user's own matplotlib settings are put aside while drawing. Names
are text, never a formula. SVG and PDF keep text as text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nas.core.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.16  # inches: the width of a column, and of a page of two columns
DPI = 300
# colours that are told apart by all (Okabe and Ito, https://jfly.uni-koeln.de/color/), each with a mark and a line
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<>"
LINES = ("-", "--", "-.", ":")
GREY = "#999999"
MANY = 2000  # marks; beyond, they are pixels within an SVG or PDF

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "legend.frameon": True,
    "legend.framealpha": 0.8,
    "legend.edgecolor": "none",
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nas",
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, None]] = {  # what would differ from day to day and from machine to machine
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)

Draw = Callable[["Figure"], None]


def check_formats(formats: Sequence[str]) -> None:
    """InputError for none, and for one that is not known."""
    if not formats:
        raise InputError(f"a picture has a format: {', '.join(FORMATS)}")
    for form in formats:
        if form not in FORMATS:
            raise InputError("unknown format of pictures", form, nearest=nearest(form, FORMATS))


def rendered(draw: Draw, form: str = "png", size: tuple[float, float] = (COLUMN, 2.6)) -> bytes:
    """The file of a picture; size: inches."""
    check_formats([form])
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format=form, metadata=_METADATA[form])
    return file.getvalue()


def run_style(number: int) -> tuple[str, str, str]:
    """Colour, mark and line of one of several runs, in this order told apart up to 28."""
    line = LINES[number // len(COLORS) % len(LINES)]
    return COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)], line


def number_axis(axes: Axes, which: Literal["x", "y"], key: str, log: bool = False) -> None:
    """Plain numbers at the ticks, counts with k, M and G; a few ticks where they are logarithmic."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    if key in ("macs", "params"):
        axis.set_major_formatter(EngFormatter(sep=" "))
    elif log:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def note(figure: Figure, texts: Sequence[str]) -> None:
    """Small print below a picture; nothing where there is nothing to say."""
    told = "; ".join(text for text in texts if text)
    if told:
        figure.supxlabel(told, fontsize=6, color="#444444")
