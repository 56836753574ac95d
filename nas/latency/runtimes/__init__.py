"""Runtimes: what runs a network on a device, one a file, discovered; each but eager is optional to install.

A runtime's module has

    KINDS        the kinds of devices it runs on: {"cpu", "gpu"}
    PRECISIONS   those it offers, the first is the default
    PACKAGES     what must be installed (import names), whose versions go into a table
    deployment   0 for a runtime that nobody deploys networks in on a processor; else its rank there, higher is faster
                 (plain `cpu` takes the installed one of highest rank; for `gpu` see nas.latency.target.GPU_ORDER)
    load(module, inputs, target) -> Call    the module, ready to run on these inputs with no further preparation;
                 runs once inside, so that what the runtime cannot run fails here. Raises Unsupported with the reason;
                 lack of memory passes through as the runtime tells it.

`module` is in eval mode on the CPU and takes the tensors `inputs` as positional arguments; the runtime may move and
rewrite it. The call returns its outputs in order as the runtime gives them (tensors or arrays, one or several), which
may be the same memory in every call; inputs and outputs are not copied at the border where the runtime allows that.
"""

from __future__ import annotations

from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

from nas.core.errors import InputError, nearest
from nas.core.kinds import lacking, modules_of

if TYPE_CHECKING:
    from nas.latency.clock import Stopwatch
    from nas.latency.target import Target


class Unsupported(RuntimeError):
    """This runtime cannot run this network, and why."""


@cache
def runtimes() -> dict[str, ModuleType]:
    """Name to module of every runtime; a module imports nothing heavy until it loads a network."""
    return modules_of(__name__, __file__)


def installed(name: str) -> bool:
    """Whether what the runtime needs is there."""
    return not missing(name)


def missing(name: str) -> tuple[str, ...]:
    """The packages that the runtime needs and that are not installed."""
    return lacking(runtime(name).PACKAGES)


def runtime(name: str) -> ModuleType:
    """A runtime by name."""
    known = runtimes()
    if name not in known:
        raise InputError("unknown runtime", value=name, nearest=nearest(name, known))
    return known[name]


def stopwatch(target: Target) -> Stopwatch:
    """Seconds of one call on the target's device: the wall clock of a processor, the events of a GPU."""
    if target.kind == "cpu":
        from nas.latency.clock import OneThread, wall

        return OneThread() if target.threads == 1 else wall
    from nas.latency.runtimes._cuda import events

    return partial(events, device=target.device)
