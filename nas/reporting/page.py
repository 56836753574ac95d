"""Page: one or several searches as one HTML file that needs nothing else, neither network nor library.

Its parts lie in nas/reporting/page/, its data is that of nas.reporting.page_data. Script and style are allowed by their
hashes and nothing else is; whatever comes from a run is JSON without `<`, which the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nas.core.errors import InputError
from nas.core.runs import write_whole
from nas.reporting.compared import names
from nas.reporting.finished import Finished
from nas.reporting.page_data import page_data

PARTS = Path(__file__).with_name("page")
SCRIPTS = ("data", "documents", "axes", "state", "tip", "scatter", "parallel", "table", "network", "panels", "main")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page(runs: Sequence[Finished], title: str = "") -> str:
    """The page of one search, or of several side by side: the same text for the same runs."""
    if not runs:
        raise InputError("a page shows at least one search")
    style = _part("page.css")
    script = "".join(['"use strict";\n{\n', *(_part(f"{name}.js") for name in SCRIPTS), "}\n"])
    allowed = {"default-src": "'none'", "script-src": _hash(script), "style-src": _hash(style)}
    allowed |= {"base-uri": "'none'", "form-action": "'none'"}
    parts = {
        "title": html.escape(title or ", ".join(names(runs))),
        "policy": "; ".join(f"{what} {sources}" for what, sources in allowed.items()),
        "style": style,
        "script": script,
        "data": _json(page_data(runs)),
    }
    return _PLACE.sub(lambda place: parts[place[1]], _part("page.html"))


def write_page(path: str | os.PathLike[str], runs: Sequence[Finished], title: str = "") -> None:
    """Write the page, whole or not at all."""
    write_whole(path, page(runs, title))


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: object) -> str:
    """JSON that ends no script and begins no comment, whatever texts are in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
