"""ExecuTorch: the fused network as model.pte for phones and small devices, lowered to XNNPACK; single images.

Networks that use operations for which ExecuTorch has no portable kernel are refused, with the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.targets import Refused, _programs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nas.exporting.subject import Subject

about = "ExecuTorch with XNNPACK (model.pte): phones, single-board computers"
PACKAGES = ("executorch",)
TOLERANCE = _programs.TOLERANCE
FILE = "model.pte"


def write(subject: Subject, folder: Path) -> None:
    _programs.write(subject, folder, _programs.deployed(subject), _form, _opened, batches=(False,))


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_opened, folder, images, threads)


def usage(name: str) -> str:
    return f"""from executorch.runtime import Runtime

forward = Runtime.get().load_program("executorch/{FILE}").load_method("forward")
(logits,) = forward.execute([image])  # a float32 tensor (1, channels, height, width)
"""


def _form(program: ExportedProgram) -> dict[str, bytes]:
    from nas.latency.runtimes.executorch import lowered

    return {FILE: lowered(program)}


def _opened(folder: Path, threads: int) -> _programs.Runner:
    from executorch.runtime import Runtime

    from nas.latency.runtimes import Unsupported
    from nas.latency.runtimes.executorch import use_threads

    try:
        use_threads(threads)
    except Unsupported as error:
        raise Refused(str(error)) from None
    method = Runtime.get().load_program(folder / FILE).load_method("forward")

    def run(image: Tensor) -> Tensor:
        return method.execute([image.contiguous()])[0].clone()  # the memory is that of the next call as well

    return _programs.one_by_one(run)
