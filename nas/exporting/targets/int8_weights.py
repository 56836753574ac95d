"""int8 weights: a program of torch.export whose linear layers have weights of 8 bits (torchao, weight-only).

Activations stay in float32, so that the file is a fourth of the size where a network is linear layers, and no call is
quicker on most processors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.targets import _archive, _programs, _torchao

if TYPE_CHECKING:
    from torch import Tensor

    from nas.exporting.subject import Subject

about = "int8 weights by torchao, float32 activations (model.pt2): a fourth of the size"
PACKAGES = ("torchao",)
TOLERANCE = 0.05


def write(subject: Subject, folder: Path) -> None:
    from nas.model.program import quiet

    with quiet():
        from torchao.quantization import Int8WeightOnlyConfig

    _torchao.write(subject, folder, Int8WeightOnlyConfig(set_inductor_config=False))


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_archive.opened, folder, images, threads)


def usage(name: str) -> str:
    return _archive.usage("int8_weights")
