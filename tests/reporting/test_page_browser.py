"""The page of searches in a real browser, opened from a file: what it shows, and what it does when it is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.core.space import Space
from nas.core.yamlfile import parse_yaml
from nas.model.spaces import shared_rules
from nas.reporting.finished import Finished, over
from nas.reporting.page import write_page
from nas.reporting.pareto import front
from tests.reporting.browsing import (
    find,
    listed,
    opened,
    pointer,
    quiet,
    scale,
    settled,
    short,
    shown_as,
    texts,
    typed,
)
from tests.reporting.made_runs import finished
from tests.reporting.page_runs import HOSTILE, hostile, made

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LOAD_MS = 2000.0


@pytest.fixture(scope="module")
def demo() -> Finished:
    return hostile()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium for the tests of this file."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs the system packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1000")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)  # else selenium asks the network for one
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file of a page, made once for each name."""
    folder, known = tmp_path_factory.mktemp("pages"), {}

    def written(name: str, *runs: Finished) -> Path:
        if name not in known:
            known[name] = folder / f"{name}.html"
            write_page(known[name], runs, HOSTILE)
        return known[name]

    return written


@pytest.fixture
def shown(browser: Any, file_of: Callable[..., Path], demo: Finished) -> Any:
    """The browser with the page of `demo`, as new."""
    opened(browser, file_of("demo", demo))
    return browser


def test_hostile_names_are_shown_as_text(shown: Any) -> None:
    assert shown.title == HOSTILE and find(shown, "h1").text == HOSTILE
    assert texts(shown, "#notices li") == [HOSTILE]
    assert HOSTILE in find(shown, "#facts").text and find(shown, "#lead").text.count(HOSTILE) == 1
    injected = "const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s);"
    assert shown.execute_script(injected + "return window.hit ?? null") is None, "the policy lets a script in"
    assert shown.execute_script("return document.images.length") == 0
    assert [entry for entry in shown.get_log("browser") if "Content Security Policy" in entry["message"]]


def test_keyboard_and_pointer_show_the_figures_of_a_point(shown: Any, demo: Finished) -> None:
    from selenium.webdriver.common.keys import Keys

    def told() -> str:
        return str(find(shown, "#tip").text)

    known = sorted((row for row in demo.rows), key=lambda row: row["latency_ms"])
    box = find(shown, "#scatter")
    box.send_keys(Keys.HOME)
    for row in known[:3]:
        latency = shown_as(row["latency_ms"]), shown_as(row["latency_ms"] / 20, 2)
        accuracy = "–" if row["accuracy"] is None else f"{shown_as(row['accuracy'])} ± 0.4"
        for text in (row["digest"][:8], " ± ".join(latency), accuracy):
            assert text in told() and text in texts(shown, "#spoken")[0]
        ring = find(shown, "#scatter circle.hovered")
        at = float(ring.get_attribute("cx")), float(ring.get_attribute("cy"))
        before = told()
        pointer(shown, (at[0], at[1] - 60))
        pointer(shown, at)
        assert told() == before
        box.send_keys(Keys.ARROW_RIGHT)
    box.send_keys(Keys.ARROW_LEFT, Keys.ENTER)
    assert known[2]["digest"][:8] in find(shown, "#network-body h3").text
    quiet(shown)


def test_a_rectangle_narrows_the_table(shown: Any, demo: Finished) -> None:
    pointer(shown, (150.0, 60.0), (420.0, 260.0))
    x, y = scale(shown, "x"), scale(shown, "y")
    place = {
        name: float(find(shown, "#scatter rect.brush").get_attribute(name)) for name in ("x", "y", "width", "height")
    }
    assert place == pytest.approx({"x": 150, "y": 60, "width": 270, "height": 200}, abs=2)
    (left, right) = (x(place["x"]), x(place["x"] + place["width"]))
    (low, high) = (y(place["y"] + place["height"]), y(place["y"]))
    inside = [
        row
        for row in demo.rows
        if row["accuracy"] is not None and left <= row["latency_ms"] <= right and low <= row["accuracy"] <= high
    ]
    assert 0 < len(inside) < 40 and set(listed(shown)) == set(short(inside))
    assert find(shown, "#count").text == f"{len(inside)} of 80 networks"
    find(shown, "#clear").click()
    assert len(listed(shown)) == 80
    quiet(shown)


def test_the_front_is_that_of_the_axes(shown: Any, demo: Finished) -> None:
    from selenium.webdriver.support.ui import Select

    kept = [row for row in demo.rows if not over(row)]
    for key, better in (("latency_ms", "minimize"), ("params", "minimize"), ("macs", "minimize")):
        Select(find(shown, "#x")).select_by_value(key)
        settled(shown)
        wanted = front([[row["accuracy"], row[key]] for row in kept], ["maximize", better])
        counts = [int(text.split("(")[1][:-1]) for text in texts(shown, "#kind-picker label")]
        assert counts[0] == len(wanted) and counts[1] == len(kept) - len(wanted)
        assert sum(counts) == 80 and counts[3] == sum(row["reason"] is not None for row in demo.rows)
        names = texts(shown, "#scatter > svg:first-child text.strong")
        assert names[0].startswith({"latency_ms": "latency (ms)", "params": "parameters"}.get(key, "multiply"))
    drawn = "return document.querySelector('#scatter canvas').toDataURL()"
    before = shown.execute_script(drawn)
    find(shown, "#x-log").click()
    settled(shown)
    assert shown.execute_script(drawn) != before
    quiet(shown)


def test_the_table_sorts_and_filters(shown: Any, demo: Finished) -> None:
    def sorted_by(key: str, falling: bool) -> list[str]:
        known = sorted((row for row in demo.rows if row[key] is not None), key=lambda row: row[key], reverse=falling)
        return short(known)

    head = next(one for one in shown.find_elements("css selector", "th button") if one.text == "accuracy")
    for falling in (False, True):
        head.click()
        wanted = sorted_by("accuracy", falling)
        assert listed(shown)[: len(wanted)] == wanted
        sort = shown.execute_script("return arguments[0].closest('th').getAttribute('aria-sort')", head)
        assert sort == ("descending" if falling else "ascending")
    for text, keep in (
        ("latency_ms<2.5", lambda row: row["latency_ms"] < 2.5),
        ("params>=1M, latency_ms<5", lambda row: row["params"] >= 1e6 and row["latency_ms"] < 5),
        ("out of memory", lambda row: row["reason"] is not None),
        ("additive", lambda row: "additive" in json.dumps(row["architecture"])),
        ("stages=2, head=mean", lambda row: len(row["architecture"]["stages"]) == 2),
        (demo.rows[7]["digest"][:10], lambda row: row is demo.rows[7]),
    ):
        wanted = {row["digest"][:8] for row in demo.rows if keep(row)}
        assert 0 < len(wanted) < 80 and set(typed(shown, text)) == wanted, text
    typed(shown, "latncy<3")
    assert "latncy" in find(shown, "#filter-fault").text
    assert find(shown, "#filter").get_attribute("aria-invalid") == "true"
    quiet(shown)


def test_a_network_is_shown_with_its_blocks_file_and_command(shown: Any, demo: Finished) -> None:
    shown.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    from selenium.webdriver.common.keys import Keys

    member, other = demo.front[0], next(row for row in demo.rows if row["reason"])
    for row, pick in ((member, str(member["number"])), (other, other["digest"][:12])):
        typed(shown, row["digest"][:12])
        find(shown, "#table tbody button").send_keys(Keys.ENTER)
        command = f"""python -m nas.export 'runs/it'"'"'s demo' --pick {pick} --to onnx"""
        assert find(shown, "#command").get_attribute("value") == command
        find(shown, "#copy").click()
        read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (fault) => done(String(fault)))"
        assert shown.execute_async_script(read) == command
        text = texts(shown, "#document pre")[0]
        architecture = Space.parse(parse_yaml(text, "page"), shared_rules(), "page").only()
        assert architecture.digest[4:] == row["digest"][4:]
        drawn = texts(shown, "#network-body g.block > title")
        assert len(drawn) == len(row["outline"])
        for told, block in zip(drawn, row["outline"], strict=True):
            assert told.startswith(f"stage {block['stage'] + 1}, {block['width']} channels, mixer {block['mixer']}")
            assert told.endswith(f"tokens {block['tokens']} to {block['left']}")
    quiet(shown)


def test_members_are_shown_with_what_was_measured(shown: Any, demo: Finished) -> None:
    assert f"{len(demo.front)} of {len(demo.front)} members" in find(shown, "#agreement-note").text
    assert len(shown.find_elements("css selector", "#agreement circle")) == len(demo.front)
    typed(shown, "member=1")
    measured = demo.front[0]["measured_ms"]
    assert f"{shown_as(measured)} (" in find(shown, "#table tbody").text
    typed(shown, f"measured_ms<{measured * 1.001}")
    assert len(shown.find_elements("css selector", "#table tbody tr.row")) == 1


def test_every_control_has_a_name_and_a_phone_needs_no_sideways_scrolling(shown: Any) -> None:
    nameless = """return [...document.querySelectorAll("input, select, textarea, button, [tabindex='0']")]
        .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.getAttribute("aria-labelledby")
            || one.textContent.trim())).map((one) => one.outerHTML)"""
    assert shown.execute_script(nameless) == []
    twice = (
        "const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); return ids.length - new Set(ids).size"
    )
    assert shown.execute_script(twice) == 0
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        settled(shown)
        for _ in range(2):  # as turned, and as opened
            assert shown.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
            shown.refresh()
        quiet(shown)
    finally:
        shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_several_searches_are_shown_together(browser: Any, file_of: Callable[..., Path], demo: Finished) -> None:
    other = replace(made("digits", 30, seed=5), path=Path("runs/other"))
    opened(browser, file_of("two", demo, other))
    assert find(browser, "#count").text == "110 of 110 networks"
    assert len(browser.find_elements("css selector", "#curve path")) == 2
    browser.find_elements("css selector", "#run-picker input")[0].click()
    assert set(listed(browser)) == set(short(other.rows))
    assert len(browser.find_elements("css selector", "#curve path")) == 1
    assert any("cannot be compared" in text for text in texts(browser, "#notices li"))
    quiet(browser)


def test_ten_thousand_networks_load_quickly(browser: Any, file_of: Callable[..., Path]) -> None:
    few = made("digits", 100)
    rows = [{**few.rows[i % 100], "trial": i, "digest": f"{i:08x}{i:056x}"} for i in range(10_000)]
    rows = [{**row, "latency_ms": row["latency_ms"] * (1 + i / 1e6)} for i, row in enumerate(rows)]
    opened(browser, file_of("many", finished(Path("runs/many"), rows)))
    ready = browser.execute_script("return performance.getEntriesByName('ready')[0].startTime")
    assert browser.execute_script("return document.getElementsByTagName('*').length") < 3000
    assert ready < LOAD_MS
