"""torch.export: the network as one program, weights included, that torch alone loads and runs.

The program is that of the fused network. It takes batches of any size where torch.export can leave the size open, else
single images; `program.graph` says which in the shape of its input.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.targets import _archive, _programs

if TYPE_CHECKING:
    from torch import Tensor

    from nas.exporting.subject import Subject

about = "program of torch.export (model.pt2): torch alone runs it"
PACKAGES = ("torch",)
TOLERANCE = _programs.TOLERANCE


def write(subject: Subject, folder: Path) -> None:
    _programs.write(subject, folder, _programs.deployed(subject), _archive.archived, _archive.opened)


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_archive.opened, folder, images, threads)


def usage(name: str) -> str:
    return _archive.usage("torch_export")
