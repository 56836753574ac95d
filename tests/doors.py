"""What tests of doors share."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refused(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Bad input ends the process with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
