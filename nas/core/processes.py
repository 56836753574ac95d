"""Processes that begin from a server which has done nothing else.

A fork of a process with threads would lack those that its libraries have begun, and hold their locks; one that starts
anew would import everything again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext


def served(preload: Sequence[str]) -> ForkServerContext | SpawnContext:
    """What makes processes, forked where the system can from a server that has imported these modules."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))  # of no effect once it serves
    return context
