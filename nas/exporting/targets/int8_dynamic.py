"""int8, dynamic: a program of torch.export whose linear layers multiply 8 bits by 8 bits (torchao).

Weights have one scale for each output channel, activations one for each token, computed in the call.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.targets import _archive, _programs, _torchao

if TYPE_CHECKING:
    from torch import Tensor

    from nas.exporting.subject import Subject

about = "int8 weights and activations by torchao, scales in the call (model.pt2): products of integers"
PACKAGES = ("torchao",)
TOLERANCE = 0.05
ROUNDED = 1e-2  # an activation between two integers is rounded up or down by its last bit


def write(subject: Subject, folder: Path) -> None:
    from nas.model.program import quiet

    with quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    _torchao.write(subject, folder, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False), ROUNDED)


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_archive.opened, folder, images, threads)


def usage(name: str) -> str:
    return _archive.usage("int8_dynamic")
