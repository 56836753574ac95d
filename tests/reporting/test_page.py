"""The page of searches as text: its data, its policy, its size, its colours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.core.errors import InputError
from nas.reporting.finished import Finished
from nas.reporting.page import PARTS, page, write_page
from nas.reporting.page_data import packed, page_data
from tests.reporting.page_runs import HOSTILE, hostile, made


@pytest.fixture(scope="module")
def demo() -> Finished:
    return hostile()


def parts(text: str) -> dict[str, str]:
    """Policy, style, data and script of a page."""
    found = re.fullmatch(
        r'.*Policy" content="(.*?)">.*<style>(.*?)</style>.*id="data">(.*?)</script>\s*<script>(.*?)</script>.*',
        text,
        re.DOTALL,
    )
    assert found is not None
    return dict(zip(("policy", "style", "data", "script"), found.groups(), strict=True))


def test_the_page_is_a_function_of_its_runs(demo: Finished, tmp_path: Path) -> None:
    text = page([demo], "A title")
    assert text == page([replace(demo)], "A title") and "<title>A title</title>" in text
    write_page(tmp_path / "report.html", [demo], "A title")
    assert (tmp_path / "report.html").read_text() == text
    with pytest.raises(InputError, match="at least one search"):
        page([])


def test_only_its_own_script_and_style_are_allowed(demo: Finished) -> None:
    found = parts(page([demo], HOSTILE))
    rules = dict(rule.split(" ", 1) for rule in found["policy"].split("; "))
    for rule, part in (("script-src", "script"), ("style-src", "style")):
        wanted = base64.b64encode(hashlib.sha256(found[part].encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{wanted}'"
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    assert "<" not in found["data"] and HOSTILE in json.loads(found["data"])["notices"]
    for forbidden in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://", "fetch("):
        assert forbidden not in found["script"].replace("http://www.w3.org/2000/svg", ""), forbidden


def test_a_thousand_networks_of_the_flagship_space_are_small() -> None:
    assert len(page([made("mixed", 1000)]).encode()) < 500_000


def unpacked(form: Any, count: int) -> list[Any]:
    """What the script makes of a packed column."""
    if isinstance(form, list):
        return form
    if "all" in form:
        return [form["all"]] * count
    if "of" in form:
        digits = string.ascii_letters + string.digits + "-_"
        width = 1 if len(form["of"]) <= 64 else 2
        places = [form["at"][i : i + width] for i in range(0, len(form["at"]), width)]
        return [
            form["of"][int(np.ravel_multi_index([digits.index(d) for d in place], [64] * width))] for place in places
        ]
    return [None if at is None else "+".join(form["names"][int(i)] for i in at.split("+")) for at in form["at"]]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([None] * 9, "all"),
        ([True] * 9, "all"),
        ([1, 1.0, True, None, "1"] * 9, "of"),
        (["long text", "another text"] * 9, "of"),
        ([f"softmax+window+op{i % 7}+additive+op{i % 5}" for i in range(40)] + ["softmax", None], "names"),
        ([f"a text of {i % 100}" for i in range(500)], "of"),
        (list(range(40)), "list"),
        ([], "list"),
    ],
)
def test_columns_are_packed_without_loss(values: list[Any], form: str) -> None:
    told = json.loads(json.dumps(packed(values)))
    assert (form in told) if form != "list" else isinstance(told, list)
    assert [(type(v), v) for v in unpacked(told, len(values))] == [(type(v), v) for v in values]


def test_figures_are_rounded_and_what_is_not_finite_is_unknown(demo: Finished) -> None:
    rows = [{**row, "seconds": value} for row, value in zip(demo.rows, [1.2345678, float("nan")] * 40, strict=True)]
    told = page_data([replace(demo, rows=rows)])
    figures = {figure["key"]: figure for figure in told["figures"]}
    assert unpacked(figures["seconds"]["values"], 80)[:2] == [1.2346, None]
    assert figures["seconds"]["better"] == 0 and figures["accuracy"]["better"] == 1
    assert unpacked(figures["macs"]["values"], 80)[0] == pytest.approx(rows[0]["macs"], rel=1e-4)


def test_what_contradicts_itself_is_refused(demo: Finished) -> None:
    first, second = demo.rows[:2]
    with pytest.raises(InputError, match="outline of a network"):
        page([replace(demo, rows=[{**first, "outline": second["outline"]}], front=[])])
    with pytest.raises(InputError, match="member of the front is none"):
        page([replace(demo, rows=[row for row in demo.rows if row["digest"] != demo.front[0]["digest"]])])


def luminance(colour: str) -> float:
    """Relative, of WCAG 2.2 (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_marks_stand_out(scheme: str) -> None:
    light, dark = re.findall(r":root[^{]*\{([^}]*)\}", (PARTS / "page.css").read_text())
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    assert len(colours) == len(re.findall(r"--[\w-]+:", light))
    for ground in ("ground", "panel", "raised"):
        for text in ("text", "muted", "accent", "fault", "caution"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for mark in ("front", "dominated", "infeasible", "unjudged", *(f"s{i}" for i in range(8))):
        assert contrast(colours[mark], colours["panel"]) >= 3, mark
