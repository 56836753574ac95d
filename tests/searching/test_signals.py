"""Signals to a worker: its children's are their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from nas.searching import signals
from tests.forked import ranks


def _with_a_child(folder: Path) -> None:
    signals.END_S = 0.1
    with signals.Signals(lambda: None, lambda: None) as entered:
        if not (child := os.fork()):
            time.sleep(60)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(1.0)  # in which a watcher that took the signal for its own would end the process
        assert entered.received is None


def test_a_forked_child_that_is_ended_leaves_its_parent_alone(tmp_path: Path) -> None:
    ranks(1, tmp_path, _with_a_child, tmp_path)
