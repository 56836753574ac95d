"""ONNX: the fused network as one file, input `image`, output `logits`.

The batch is open where the whole network can be written so, else it is 1; the input's shape in the file says which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.targets import _programs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nas.exporting.subject import Subject

about = "ONNX (model.onnx): ONNX Runtime and whatever else reads the format"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = _programs.TOLERANCE
FILE = "model.onnx"


def write(subject: Subject, folder: Path) -> None:
    _programs.write(subject, folder, _programs.deployed(subject), _form, _opened)


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_opened, folder, images, threads)


def usage(name: str) -> str:
    return f"""import onnxruntime

session = onnxruntime.InferenceSession("onnx/{FILE}")
logits = session.run(["logits"], {{"image": images}})[0]  # a float32 array (batch, channels, height, width)
"""


def _form(program: ExportedProgram) -> dict[str, bytes]:
    from nas.model.program import onnx_of

    return {FILE: onnx_of(program, ["logits"])}


def _opened(folder: Path, threads: int) -> _programs.Runner:
    import torch

    from nas.latency.runtimes import onnxruntime
    from nas.latency.target import Target

    session = onnxruntime.opened(str(folder / FILE), Target(runtime="onnxruntime", threads=threads))

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"image": images.numpy()})[0])

    open_batch = isinstance(session.get_inputs()[0].shape[0], str)
    return run if open_batch else _programs.one_by_one(run)
