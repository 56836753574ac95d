"""OpenVINO: the fused network as model.xml and model.bin, weights in float32, input `image`, output `logits`.

The batch is open (-1) where the whole network can be written so, else it is 1. A model runs fastest with its batch
fixed: `load` and the usage do so. The precision is set as well: OpenVINO's own choice is bfloat16 where the processor
has it, which differs by up to 8e-2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.exporting.targets import _programs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from nas.exporting.subject import Subject

about = "OpenVINO (model.xml, model.bin): processors, GPUs and NPUs of Intel, and Arm processors"
PACKAGES = ("openvino",)
TOLERANCE = _programs.TOLERANCE
FILE = "model.xml"


def write(subject: Subject, folder: Path) -> None:
    _programs.write(subject, folder, _programs.deployed(subject), _form, _opened)


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    return _programs.bound(_opened, folder, images, threads)


def usage(name: str) -> str:
    return f"""import openvino

core = openvino.Core()
model = core.read_model("openvino/{FILE}")
model.reshape(images.shape)  # a float32 array (batch, channels, height, width); fixed shapes run fastest
network = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
logits = network({{"image": images}})["logits"]
"""


def _form(program: ExportedProgram) -> dict[str, bytes]:
    import openvino

    from nas.latency.runtimes.openvino import converted

    (name,) = program.graph_signature.user_inputs
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == name)
    model = converted(program)
    model.reshape([size if isinstance(size, int) else -1 for size in shape])
    _rename(model)
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / FILE, compress_to_fp16=False)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _rename(model: Any) -> None:
    """Names by place, for those that OpenVINO gives count what this process has converted before."""
    model.set_friendly_name("network")
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
        for output in operation.outputs():
            output.get_tensor().set_names(set())
    model.input(0).get_tensor().set_names({"image"})
    model.input(0).get_node().set_friendly_name("image")
    model.output(0).get_tensor().set_names({"logits"})


def _opened(folder: Path, threads: int) -> _programs.Runner:
    import torch

    from nas.latency.runtimes.openvino import core, settings

    compiled = {}
    model = core().read_model(folder / FILE)
    fixed = not model.input(0).get_partial_shape()[0].is_dynamic

    def run(images: Tensor) -> Tensor:
        if images.shape not in compiled:
            model.reshape(list(images.shape))
            compiled[images.shape] = core().compile_model(model, "CPU", settings(threads)).create_infer_request()
        return torch.from_numpy(compiled[images.shape].infer({"image": images.numpy()})["logits"].copy())

    return _programs.one_by_one(run) if fixed else run
