"""Programs: the one place that traces a module with torch.export, and that writes ONNX.

Tracing is non-strict: the module runs once as plain Python on tensors without data, which takes a fraction of the time
of strict tracing (0.3 s instead of 5 s for two blocks) and gives the same program for modules that keep no state.
Shapes are those of the inputs; a program is for that size of images only, and for that batch unless it is left open.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_TRACES = ("stack_trace", "from_node", "source_fn_stack", "torch_fn")  # notes at an operation: where it came from
_HOLDERS = {"GraphProto", "NodeProto", "AttributeProto", "FunctionProto", "TensorProto", "ValueInfoProto"}


def exported(module: nn.Module, inputs: tuple[Tensor, ...], *, any_batch: bool = False) -> ExportedProgram:
    """The program of a module in eval mode; raises what torch.export raises.

    any_batch  the first dimension of every input is the batch, of any size; the inputs hold two samples or more
    """
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        shapes = tuple({0: batch} for _ in inputs) if any_batch else None
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


def without_traces(program: ExportedProgram) -> ExportedProgram:
    """The program, in place, without what tells of this machine and this process: where in which file each operation
    came from, numbers of objects, and the inputs that it was traced with."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in _TRACES:
                    node.meta.pop(key, None)
    program.example_inputs = None
    return program


def onnx_model(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """The module as one ONNX file with its weights (at most 2 GB, the limit of the format).

    Inputs that no operation reads stay in it, in their order; their names are those of `forward`.
    """
    return onnx_of(exported(module, inputs))


def onnx_of(program: ExportedProgram, outputs: Sequence[str] | None = None) -> bytes:
    """A program as one ONNX file, with names for its outputs; no word in it of the machine that wrote it."""
    with quiet(), torch.no_grad():
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            output_names=outputs,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        )
    assert written is not None
    model = written.model_proto
    _forget_origins(model)
    _name_batch(model.graph)
    return model.SerializeToString(deterministic=True)


def _forget_origins(message: Any) -> None:
    """Take the notes of the exporter (lines of code, paths) out of a message of ONNX and of all within it."""
    from google.protobuf.message import Message

    for field in ("metadata_props", "doc_string"):
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name in _HOLDERS:
            for inner in [value] if isinstance(value, Message) else value:
                _forget_origins(inner)


def _name_batch(graph: Any) -> None:
    """An open first dimension of the first input is called `batch` wherever it stands."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param if graph.input else ""
    for value in [*graph.input, *graph.output, *graph.value_info] if symbol else []:
        for dim in value.type.tensor_type.shape.dim:
            if symbol in dim.dim_param:
                dim.dim_param = dim.dim_param.replace(symbol, "batch")


def _stable_sort(x: Any, *, dim: int = -1, descending: bool = False, **_: Any) -> Any:
    """ONNX has no sort, but its TopK puts the first of equals first, so all of them in order are stable."""
    from onnxscript import opset18

    count = opset18.Shape(x, start=dim, end=dim + 1 or None)
    return opset18.TopK(x, count, axis=dim, largest=descending, sorted=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print, log and warn of their own progress and versions, nothing that concerns the module."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
