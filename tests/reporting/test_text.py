"""Numbers as they are printed, and tables of text and of LaTeX."""

import re

import pytest

from nas.reporting.front_tables import front_csv, front_latex, mixers_text
from nas.reporting.latex import escaped, latex_table
from nas.reporting.text import markdown_table, rounded, text_table
from tests.reporting.made_runs import ESTIMATED, block, finished, row, usual_rows


@pytest.mark.parametrize(
    ("value", "uncertainty", "expected"),
    [  # the examples of the Particle Data Group's rule, and its borders
        (0.827, 0.119, ("0.83", "0.12")),
        (0.827, 0.367, ("0.8", "0.4")),
        (14.674, 0.964, ("14.7", "1.0")),
        (5.0, 0.0354, ("5.000", "0.035")),
        (5.0, 0.0355, ("5.00", "0.04")),
        (5.0, 0.949, ("5.0", "0.9")),
        (5.0, 0.9999, ("5.0", "1.0")),
        (-1234.5, 23.4, ("-1234", "23")),
        (123456.0, 4567.0, ("123000", "5000")),
        (0.0, 0.01, ("0.000", "0.010")),
        (71.23456, None, ("71.23", "")),
        (71.23456, 0.0, ("71.23", "")),
        (0.0, None, ("0", "")),
        (0.00012345, None, ("0.0001234", "")),
        (1.5e9, None, ("1.5e+09", "")),
        (float("inf"), 1.0, ("inf", "")),
        (5.0, float("nan"), ("5.000", "")),
    ],
)
def test_a_number_is_rounded_by_what_is_known_of_it(value: float, uncertainty: float, expected: tuple[str, str]):
    assert rounded(value, uncertainty) == expected


def test_tables_of_text() -> None:
    assert text_table(["a", "bb"], [[1, "x"], ["long", 2]]) == "a     bb\n----  --\n1     x\nlong  2"
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


def braces_match(text: str) -> bool:
    """Groups close in order, escaped braces aside."""
    depth = 0
    for sign in re.sub(r"\\[\\{}]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


def test_nothing_of_a_text_is_a_command() -> None:
    hostile = r"\input{/etc/passwd} $x_1^2$ 100% a&b #1 ~ <|> " + "\n\x07é"
    shown = escaped(hostile)
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\_1\textasciicircum{}2\$ 100\% a\&b \#1" in shown
    assert "\n" not in shown and "\x07" not in shown and shown.endswith("é")
    known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[{}$&#_%]"
    assert not set(re.sub(known, "", shown)) & set("\\{}$&#_%~^<>|")


def test_a_table_stands_whole() -> None:
    table = latex_table(["a", "b_2"], [["1 ± 0.1", "x & y"], ["", "}"]], "rl", "100 % of {it}")
    assert re.findall(r"\\(begin|end)\{(\w+)\}", table) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    assert braces_match(table) and r"\begin{tabular}{rl}" in table and r"1 $\pm$ 0.1 & x \& y \\" in table
    assert [table.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == sorted(
        table.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")
    )
    with pytest.raises(ValueError, match="as many cells"):
        latex_table(["a"], [["1", "2"]], "l")


def cells(table: str) -> list[list[str]]:
    """The head and the rows of a LaTeX table."""
    lines = [line[: -len(r" \\")] for line in table.splitlines() if line.endswith(r" \\")]
    return [re.split(r"(?<!\\) & ", line) for line in lines]


def test_the_front_as_a_paper_shows_it(tmp_path) -> None:
    rows = [
        row(0, 71.234, 5.0, ["softmax(heads=2)", "window(size=4)", "softmax"], accuracy_sigma=0.62, macs=1_234_567_890),
        row(1, 60.0, 4.0, latency_ms_sigma=0.123),
    ]
    head, first, second = cells(front_latex([finished(tmp_path / "one", rows)]))
    assert head[:4] == [r"\#", r"accuracy by prior (top-1 \%)", "latency (ms)", "measured (ms)"]
    assert first[:4] == ["1", "60.00", r"4.00 $\pm$ 0.12", "4.40 [4.27, 4.49]"]
    assert second[1] == r"71.2 $\pm$ 0.6" and "1.23 G" in second
    assert r"softmax $\times$2, window $\times$1" in second


def test_columns_that_nobody_has_are_left_out(tmp_path) -> None:
    run = finished(tmp_path / "one", usual_rows(), measured=False, latency=ESTIMATED)
    table = front_latex([run])
    assert "measured (ms)" not in cells(table)[0] and "latency (ms), estimated, not measured" in cells(table)[0]
    assert "(latency estimated, not measured)" in table
    both = cells(front_latex([run, finished(tmp_path / "a_b", usual_rows())]))
    assert both[0][0] == "run" and {line[0] for line in both[1:]} == {"one", r"a\_b"}
    empty = front_latex([finished(tmp_path, [row(0, 1.0, 1.0, over=1.0)])])
    assert len(cells(empty)) == 1 and braces_match(empty)


def test_the_front_as_csv_has_every_digit(tmp_path) -> None:
    import csv
    import io

    run = finished(tmp_path / "one", usual_rows())
    lines = list(csv.DictReader(io.StringIO(front_csv([run]))))
    assert [float(line["latency_ms"]) for line in lines] == [own["latency_ms"] for own in run.front]
    assert [line["digest"] for line in lines] == [own["digest"] for own in run.front]
    assert {line["run"] for line in lines} == {"one"} and lines[0]["peak_mb"] == "80.0"
    assert lines[0]["mixers"] == mixers_text(run.front[0])
    many = {"outline": [block(name) for name in "aaabbcdd"]}
    assert mixers_text(many) == "a ×3, b ×2, d ×2, c ×1" and mixers_text(many, 3) == "a ×3, b ×2, others ×3"
    assert mixers_text({"outline": [block(""), block("a(x=1)"), block("a")]}) == "a ×2, no mixer ×1"
    assert len(front_csv([finished(tmp_path, [])]).splitlines()) == 1
