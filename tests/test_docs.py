"""Documents are current, and what they show runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.benching.docs import FILES, renewed

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", FILES)
def test_generated_parts_are_current(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- generated:" in text
    assert renewed(text) == text, f"{name} is not current: run make docs"


EACH = """
import sys
for snippet in sys.argv[1:]:
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})
"""


def test_python_of_the_readme_runs() -> None:
    """In a process of their own, each with names of its own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) >= 2
    subprocess.run([sys.executable, "-c", EACH, *snippets], check=True, cwd=ROOT, timeout=240)


def test_yaml_of_the_readme_is_a_space() -> None:
    from nas.core.space import Space
    from nas.core.yamlfile import parse_yaml
    from nas.ops.rules import OperatorRules

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (document,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    space = Space.parse(parse_yaml(document, "README.md"), OperatorRules(), "README.md")
    assert space.size > 1e10


def test_every_file_named_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"^    (nas/\S+|search_spaces/)", text, re.MULTILINE):
        assert (ROOT / path).exists(), path
