"""Plain text and Markdown tables, and numbers rounded by how well they are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

PLAIN = 4  # significant digits of a number of unknown uncertainty


def text_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns padded to their widest cell, a rule under the head."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *cells])
    lines = ["  ".join(row).rstrip() for row in padded]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; a bar within a cell stays a bar."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def rounded(value: float, uncertainty: float | None = None) -> tuple[str, str]:
    """A value to the decimal place of its uncertainty, and that; ("12.34", "") where nothing is known of it.

    The rule of the Particle Data Group (https://pdg.lbl.gov, Introduction, on rounding): of the uncertainty, two digits
    where the first three are 100 to 354, one where they are 355 to 949; from 950 on it is 1000, with two.
    """
    if not uncertainty or not math.isfinite(uncertainty) or not math.isfinite(value):
        return _plain(value), ""
    size = abs(uncertainty)
    power = math.floor(math.log10(size))
    leading = int(f"{size / 10.0**power:.2f}".replace(".", ""))  # 1000 for what rounds up
    if leading >= 950:
        power, leading = power + 1, 100
    places = (1 if leading <= 354 else 0) - power
    if places >= 0:
        return f"{value:.{places}f}", f"{size:.{places}f}"
    return f"{round(value, places):.0f}", f"{round(size, places):.0f}"


def _plain(value: float) -> str:
    """Four significant digits without an exponent, or the number as it is where it is too large or small for that."""
    if not math.isfinite(value) or (value and not 1e-4 <= abs(value) < 1e6):
        return f"{value:.{PLAIN}g}"
    places = PLAIN - 1 - (math.floor(math.log10(abs(value))) if value else PLAIN - 1)
    return f"{value:.{max(0, places)}f}"
