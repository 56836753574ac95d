"""ONNX Runtime, from the ONNX file that torch writes; fp32 only, as its processor kernels are.

Inputs and outputs are bound once to fixed memory, so that a call copies and allocates nothing at the border.
Another build of the package, onnxruntime-gpu, runs on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.latency.target import Target

KINDS = frozenset({"cpu", "gpu"} if any(distributions(name="onnxruntime-gpu")) else {"cpu"})
PRECISIONS = ("fp32",)
PACKAGES = ("onnxruntime", "onnx", "onnxscript")
deployment = 2


def load(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Callable[[], Any]:
    import onnxruntime

    from nas.latency.runtimes._refusal import refuse_flags, refusing
    from nas.model.program import onnx_model

    refuse_flags(target)
    with refusing("torch.onnx.export"):
        model = onnx_model(module, inputs)
    with refusing("ONNX Runtime"):
        session = opened(model, target)
        kind = "cpu" if target.kind == "cpu" else "cuda"
        number = int(target.device.partition(":")[2] or 0)
        arrays = [x.detach().contiguous().numpy() for x in inputs]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array, kind, number) for array in arrays]
        binding = session.io_binding()
        for slot, value in zip(session.get_inputs(), values, strict=True):
            binding.bind_ortvalue_input(slot.name, value)
        for slot in session.get_outputs():
            binding.bind_output(slot.name, kind, number)
        session.run_with_iobinding(binding)
        outputs = binding.get_outputs()  # allocated by the run; from now on every run writes there
        for slot, output in zip(session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(slot.name, output)
        call = partial(_run, session, binding, (arrays, values), outputs)
        call()
    return call


def _run(session: Any, binding: Any, inputs: Any, outputs: Any) -> Any:
    """The binding reads `inputs` and does not hold them."""
    session.run_with_iobinding(binding)
    return outputs


def opened(model: bytes | str, target: Target) -> Any:
    """The session of a model, or of a file, on a target."""
    import onnxruntime

    from nas.latency.runtimes import Unsupported

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # Threads that wait for work would go on spinning into the call that is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider: Any = "CPUExecutionProvider"
    if target.kind == "gpu":
        provider = ("CUDAExecutionProvider", {"device_id": int(target.device.partition(":")[2] or 0)})
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if target.kind == "gpu" and session.get_providers()[0] != provider[0]:
        raise Unsupported("ONNX Runtime did not find the CUDA that it was built for")
    return session
