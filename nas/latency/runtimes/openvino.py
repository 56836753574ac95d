"""OpenVINO on a processor, from the program of torch.export.

The precision is always set: the default on a processor with bfloat16 is bf16, and differs by up to 8e-2 from fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.latency.target import Target

KINDS = frozenset({"cpu"})
PRECISIONS = ("fp32", "bf16")
PACKAGES = ("openvino",)
deployment = 3

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def load(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Callable[[], Any]:
    import openvino

    from nas.latency.runtimes import Unsupported
    from nas.latency.runtimes._refusal import refuse_flags, refusing
    from nas.model.program import exported

    refuse_flags(target)
    if target.precision == "bf16" and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unsupported("this processor has no bfloat16: OpenVINO would run fp32")
    with refusing("torch.export"):
        program = exported(module, inputs)
    with refusing("OpenVINO's conversion"):
        model = converted(program)
        # The shapes of a program are fixed, those of several inputs are read as open all the same.
        named = dict(zip(program.graph_signature.user_inputs, inputs, strict=True))  # those that nobody reads are gone
        given = {port.any_name: named[port.any_name].detach().contiguous().numpy() for port in model.inputs}
        model.reshape({name: list(array.shape) for name, array in given.items()})
    with refusing("OpenVINO"):
        compiled = core().compile_model(model, "CPU", settings(target.threads, target.precision))
        request = compiled.create_infer_request()
        for name, array in given.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        call = partial(_infer, request, given)
        call()
    return call


@cache
def core() -> Any:
    """OpenVINO's, one for the process.

    Each gives the thread that first compiles with it a stack for signals (on processors with AMX), and gives back the
    one that was there before; where two go in the order in which they came, that is one that is gone, and the next
    signal ends the process.
    """
    import openvino

    return openvino.Core()


def settings(threads: int, precision: str = "fp32") -> dict[str, Any]:
    """For one call at a time, as quick as can be."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }


def converted(program: Any) -> Any:
    """The model of a program, by OpenVINO's frontend itself: `convert_model` reports each conversion to its makers.

    It does so from child processes of this one, several for each, which took longer than converting and measuring.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in _extensions():
        frontend.add_extension(extension)
    decoder = TorchFXPythonDecoder.from_exported_program(program)
    return frontend.convert(frontend.load(decoder))


def _infer(request: Any, given: dict[str, Any]) -> Any:
    """Inputs were set once and are shared, as outputs are: nothing is copied. The request does not hold `given`."""
    return request.infer(share_outputs=True).to_tuple()


def _extensions() -> list[Any]:
    """What OpenVINO's reading of programs lacks: it wants an argument of index_add that a program leaves out."""
    from openvino import opset15
    from openvino.frontend.pytorch import ConversionExtension

    def index_add(node: Any) -> Any:
        if node.get_input_size() != 4 or node.get_values_from_const_input(1) != 0:
            raise ValueError("index_add is read along dimension 0 and without alpha only")
        x, index, rows = node.get_input(0), node.get_input(2), node.get_input(3)
        places = opset15.unsqueeze(index, opset15.constant([-1]))
        return opset15.scatter_nd_update(x, places, rows, reduction="sum").outputs()

    return [ConversionExtension("aten.index_add.default", index_add)]
