"""What takes longest begins first, so that no core is left with it at the end."""

from __future__ import annotations

import pytest

LONGEST = ("tests/test_readme.py", "test_killed_at_twenty_random_steps")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONGEST))
