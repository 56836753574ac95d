"""ExecuTorch with XNNPACK: the runtime of phones, here through its Python binding; fp32.

Lowering a network of usual size takes half a minute of a core to more than a minute. The number of threads is one for
the whole process, fixed by the first program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.latency.target import Target

KINDS = frozenset({"cpu"})
PRECISIONS = ("fp32",)
PACKAGES = ("executorch",)
deployment = 1

_pool: list[int] = []  # its threads, once they are fixed


def load(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Callable[[], Any]:
    from executorch.runtime import Runtime, Verification

    from nas.latency.runtimes._refusal import refuse_flags, refusing
    from nas.model.program import exported

    refuse_flags(target)
    with refusing("torch.export"):
        program = exported(module, inputs)
    with refusing("ExecuTorch's lowering"):
        file = lowered(program)
    use_threads(target.threads)
    with refusing("ExecuTorch"):
        loaded = Runtime.get().load_program(file, verification=Verification.Minimal)
        method = loaded.load_method("forward")
        arguments = [x.detach().contiguous() for x in inputs]

        def call() -> Any:
            return method.execute(arguments)

        call()
    return call


def lowered(program: Any) -> bytes:
    """The file of a program, with what XNNPACK has kernels for handed to it; Unsupported where the rest has none."""
    import torch
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    from nas.latency.runtimes import Unsupported

    others = _others()
    if any(node.target in others and not _exact_gelu(node) for node in program.graph.nodes):
        program = program.run_decompositions(others)
    try:
        made = to_edge_transform_and_lower(program, partitioner=[_partitioner()]).to_executorch()
    except ValueError:  # taken apart, attention may lie in memory in another way, in which a view does not hold
        plain = program.run_decompositions({torch.ops.aten.scaled_dot_product_attention.default: _attention})
        made = to_edge_transform_and_lower(plain, partitioner=[_partitioner()]).to_executorch()
    (plan,) = made.executorch_program.execution_plan
    called = {f"{operator.name}.{operator.overload}".rstrip(".") for operator in plan.operators}
    if lacking := sorted(called - Runtime.get().operator_registry.operator_names):
        raise Unsupported(f"ExecuTorch has no portable kernel of {', '.join(lacking)}")
    return made.buffer


def _partitioner() -> Any:
    """XNNPACK's, which takes operations on more dimensions than its tensors have and fails at the first run."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.xnnpack_constants import XNN_MAX_TENSOR_DIMS

    class Partitioner(XnnpackPartitioner):
        def get_matched_nodes_from_configs(self, program: Any) -> list[Any]:
            found = super().get_matched_nodes_from_configs(program)
            return [nodes for nodes in found if max(map(_dims, nodes), default=0) <= XNN_MAX_TENSOR_DIMS]

    return Partitioner()


def _dims(node: Any) -> int:
    """The most dimensions of a tensor that an operation reads or gives."""
    import torch

    held = [one.meta.get("val") for one in (node, *node.all_input_nodes)]
    return max((value.dim() for value in held if isinstance(value, torch.Tensor)), default=0)


def _exact_gelu(node: Any) -> bool:
    return "gelu" in str(node.target) and node.kwargs.get("approximate") != "tanh"


def _others() -> dict[Any, Callable[..., Any]]:
    """Operations by others: sorting, of which there is no kernel; GELU by tanh, which XNNPACK takes for the exact; and
    folding, which is else taken apart into a padding by less than nothing.

    The largest of all are all of them, in order; of equals either may be first.
    """
    import torch

    def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> tuple[Tensor, Tensor]:
        values, indices = torch.topk(x, x.shape[dim], dim, largest=descending, sorted=True)
        return values, indices

    def argsort(*given: Any, **named: Any) -> Tensor:
        return sort(*given, **named)[1]

    def gelu(x: Tensor, approximate: str = "none") -> Tensor:
        if approximate != "tanh":
            return NotImplemented  # left as it is
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))

    def fold(
        x: Tensor, size: list[int], kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
    ) -> Tensor:
        if not any(padding):
            return NotImplemented
        (top, left), (height, width) = padding, size
        whole = aten.col2im(x, [height + 2 * top, width + 2 * left], kernel, dilation, [0, 0], stride)
        return whole[..., top : top + height, left : left + width].contiguous()

    aten = torch.ops.aten
    return {
        aten.col2im.default: fold,
        aten.sort.default: sort,
        aten.sort.stable: sort,
        aten.argsort.default: argsort,
        aten.argsort.stable: argsort,
        aten.gelu.default: gelu,
        aten.gelu_.default: gelu,
    }


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """As networks here attend: without dropout, not causal. Names of arguments, and the layout, are torch's."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    out = (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ v
    return out.transpose(1, 2).contiguous().transpose(1, 2)


def use_threads(count: int) -> None:
    """The pool of threads of this process; raises Unsupported where it has another number of them already.

    Programs hold on to the pool that they were loaded with, so it is not replaced once there are any.
    """
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    from nas.latency.runtimes import Unsupported

    if not _pool:
        _unsafe_reset_threadpool(count)
        _pool.append(count)
    if _pool[0] != count:
        raise Unsupported(f"ExecuTorch has one pool of threads in a process, and it has {_pool[0]} already")
