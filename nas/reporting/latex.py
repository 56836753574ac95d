"""LaTeX: tables as papers have them (packages booktabs; text is UTF-8, as LaTeX reads it since 2018)."""

from __future__ import annotations

from collections.abc import Sequence

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "{}$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
}


def escaped(text: str) -> str:
    """The text as LaTeX shows it; what is not printable is a space."""
    return "".join(_ESCAPES.get(c, c if c.isprintable() else " ") for c in text)


def latex_table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: str, caption: str = "") -> str:
    """A table that stands on its own in a paper; columns: one of l, c, r for each. Cells and head are plain text."""
    if len(columns) != len(head) or any(len(row) != len(head) for row in rows):
        raise ValueError("a table has as many cells in every row as it has columns")
    lines = [" & ".join(escaped(cell) for cell in row) + r" \\" for row in [head, *rows]]
    inner = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    table = [rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}"]
    about = [rf"\caption{{{escaped(caption)}}}"] if caption else []
    whole = [r"\begin{table}", r"\centering", *about, r"\label{tab:front}", *table, r"\end{table}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *whole, ""])
