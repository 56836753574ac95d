"""Programs: how a network becomes the files of a runtime, for batches of any size where that holds.

The network is copied, fused where that keeps its outputs, traced by torch.export with the batch left open, and brought
into the runtime's form. What the runtime then makes of one image and of three is held against the network. Where a
step fails or an output differs, the same is done for single images, and a loaded file takes several one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import InputError
from nas.exporting.targets import Refused

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from nas.exporting.subject import Subject

TOLERANCE = 1e-4  # of float32 in another order of summing
TRACED = 2  # images that a program for any batch is traced with
TRIED = (1, 3)  # and those that it is tried with

Runner = Callable[["Tensor"], "Tensor"]
Form = Callable[["ExportedProgram"], dict[str, bytes]]  # files by name
Opener = Callable[[Path, int], Runner]  # of a folder of files and a number of threads


def deployed(subject: Subject) -> nn.Module:
    """A copy of the network, fused, as it is measured; not fused where that moves an output beyond the tolerance."""
    import torch

    fused, images = copy.deepcopy(subject.network).fuse(), subject.images()
    with torch.inference_mode():
        if difference(fused(images), subject.network(images)) <= TOLERANCE / 10:
            return fused
    return copy.deepcopy(subject.network)


def write(
    subject: Subject,
    folder: Path,
    module: nn.Module,
    form: Form,
    opened: Opener,
    *,
    batches: tuple[bool, ...] = (True, False),
    tolerance: float = TOLERANCE,
) -> None:
    """Write the files of a module; Refused, with the reason of the last attempt, where none of them holds.

    batches    the attempts: True for any batch, False for single images
    tolerance  of the file's outputs against the module's
    """
    from nas.core.runs import write_whole
    from nas.latency.runtimes import Unsupported
    from nas.latency.runtimes._refusal import refusing
    from nas.model.program import exported, quiet, without_traces

    reason = ""
    for any_batch in batches:
        images = subject.images(TRACED if any_batch else 1)
        try:
            with quiet(), refusing("torch.export"):
                program = without_traces(exported(module, (images,), any_batch=any_batch))
            with quiet(), refusing("conversion"):
                files = form(program)
            for name, data in files.items():
                write_whole(folder / name, data)
            with refusing("a first run"):
                _hold(opened(folder, 1), module, subject, TRIED if any_batch else (1,), tolerance)
            return
        except Unsupported as error:
            reason = str(error)
    for path in folder.iterdir():
        path.unlink()
    raise Refused(reason)


def _hold(run: Runner, module: nn.Module, subject: Subject, batches: tuple[int, ...], tolerance: float) -> None:
    """Raises where a file does not give what its module gives."""
    import torch

    for batch in batches:
        images = subject.steady(batch, seed=batch)
        with torch.inference_mode():
            wanted = module(images)
        found = run(images)
        if found.shape != wanted.shape:
            raise ValueError(f"outputs have shape {tuple(found.shape)} instead of {tuple(wanted.shape)}")
        if not (off := difference(found, wanted)) <= tolerance:
            raise ValueError(f"outputs of {batch} images differ by {off:.1e}")


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest absolute difference, over the largest output where that is above 1."""
    return (found - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())


def bound(opened: Opener, folder: Path, images: Tensor, threads: int) -> Callable[[], Tensor]:
    """The call that runs these images through the files of a folder, after one run; InputError for damaged files."""
    from nas.latency.isolated import one_line

    try:
        run = opened(folder, threads)
    except (InputError, Refused):
        raise
    except Exception as error:  # every runtime has its own
        raise InputError(one_line(f"the export cannot be opened ({error})"), place=str(folder)) from error
    call = partial(run, images)
    call()
    return call


def one_by_one(run: Runner) -> Runner:
    """What a file for single images makes of several."""
    import torch

    return lambda images: torch.cat([run(image) for image in images.split(1)])
