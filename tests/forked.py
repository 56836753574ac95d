"""Processes of tests that begin with everything imported: each forks from a server that has done nothing else.

A fork of the process of the tests itself would lack the threads of those before it, such as autograd's. A server that
imports this module, itself or through another, has what training imports within its functions.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest  # noqa: F401
import sklearn.model_selection  # noqa: F401
import timm.optim  # noqa: F401
import torch

import nas.training.run  # noqa: F401
from nas.core.processes import served
from nas.ops.catalogue import Catalogue

list(Catalogue().every())  # imports every operator, and leaves a process to choose its own folders
SERVER = served([__name__])


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def ranks(world: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in so many processes, in this folder, with the variables that torchrun gives."""
    port = free_port()
    processes = [
        SERVER.Process(target=_rank, args=(rank, world, port, folder, function, arguments), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    try:
        for rank, process in enumerate(processes):
            process.join(120)
            fault = folder / f"fault-{rank}"
            assert process.exitcode == 0, fault.read_text() if fault.exists() else process.exitcode
    finally:
        for process in processes:
            process.kill()


def _rank(rank: int, world: int, port: str, folder: Path, function: Callable[..., Any], arguments: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    except BaseException:
        (folder / f"fault-{rank}").write_text(traceback.format_exc())
        raise
