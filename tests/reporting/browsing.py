"""What tests of the page in a browser share: opening it, using it, reading what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.reporting.finished import Row


def opened(browser: Any, path: Path) -> None:
    """Open a page; nothing may be said on its console, and nothing but the file be asked for."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready")
    quiet(browser)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    own = [
        told["request"]["url"] for told in asked if not told["documentURL"].startswith(("chrome:", "data:", "about:"))
    ]
    assert own == [path.as_uri()]  # the browser's own first page may still be loading


def quiet(browser: Any) -> None:
    assert browser.get_log("browser") == []


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def texts(browser: Any, selector: str) -> list[str]:
    code = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
    return list(browser.execute_script(code, selector))


def settled(browser: Any) -> None:
    """Wait for the drawing that a change has asked for."""
    code = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    browser.execute_async_script(code)


def typed(browser: Any, text: str) -> list[str]:
    """Put a text into the filter; the hashes in the table then, of a page of a hundred."""
    field = find(browser, "#filter")
    field.clear()
    field.send_keys(text)
    return listed(browser)


def listed(browser: Any) -> list[str]:
    browser.execute_script(
        "const s = document.getElementById('page-size'); s.value = '100'; s.dispatchEvent(new Event('change'))"
    )
    settled(browser)
    return texts(browser, "#table tbody td:nth-child(2) button")


def shown_as(value: float, digits: int = 4) -> str:
    """A figure, of which the page has five digits."""
    return f"{float(f'{value:.5g}'):.{digits}g}"


def short(rows: Sequence[Row]) -> list[str]:
    return [row["digest"][:8] for row in rows]


def pointer(browser: Any, *places: tuple[float, float]) -> None:
    """Move to a place of the scatter; with two, drag from the first to the second."""
    from selenium.webdriver.common.action_chains import ActionChains

    box = find(browser, "#scatter")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    middle = box.size["width"] / 2, box.size["height"] / 2
    chain = ActionChains(browser, duration=20)
    for number, place in enumerate(places):
        chain.move_to_element_with_offset(box, *(round(at - half) for at, half in zip(place, middle, strict=True)))
        if number == 0 and len(places) > 1:
            chain.click_and_hold()
    (chain.release() if len(places) > 1 else chain).perform()
    settled(browser)


def scale(browser: Any, axis: str) -> Callable[[float], float]:
    """From pixels to figures, by the labels of two ticks of a linear axis of the scatter."""
    anchor, at = ("middle", "x") if axis == "x" else ("end", "y")
    code = """return [...document.querySelectorAll(`#scatter > svg:first-child text[text-anchor=${arguments[0]}]`)]
        .filter((text) => !isNaN(text.textContent) && !text.hasAttribute("transform"))
        .map((text) => [Number(text.getAttribute(arguments[1])), Number(text.textContent)])"""
    (one, low), *_, (other, high) = browser.execute_script(code, anchor, at)
    shift = 0 if axis == "x" else -4  # of a label from its tick
    return lambda pixel: low + (pixel - one - shift) / (other - one) * (high - low)
