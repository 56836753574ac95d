"""int8 by torchao: linear layers with weights of 8 bits, a scale for each output channel, as programs of torch.export.

Quantised are layers of at least LEAST inputs and outputs that a pass calls with tokens of the image. The rest stays
in float32: convolutions, norms, products of activations, layers whose weights an operator reads itself (token_mlp,
shunted), and layers that compute constants from positions, which every image would share the error of.

torchao's tensors would be pickled in an archive, so they are taken apart into int8 values and float32 scales first, and
its operations into those of torch: the file needs torch alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.exporting.targets import _archive, _programs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from nas.exporting.subject import Subject

LEAST = 16  # inputs and outputs of a layer; smaller ones are gates and positions, which cost nothing


def write(subject: Subject, folder: Path, config: Any, tolerance: float = _programs.TOLERANCE) -> None:
    """Write the network quantised by a configuration of torchao; tolerance: of the file against that network."""
    module = quantised(subject, config)
    _programs.write(subject, folder, module, _form, _archive.opened, tolerance=tolerance)


def quantised(subject: Subject, config: Any) -> nn.Module:
    """The network as it is deployed, its layers quantised."""
    from torchao.quantization import quantize_
    from torchao.utils import unwrap_tensor_subclass

    module = _programs.deployed(subject)
    chosen = layers(module, subject.images(1, seed=0), subject.images(1, seed=1))
    quantize_(module, config, filter_fn=lambda _, name: name in chosen)
    return unwrap_tensor_subclass(module)


def layers(module: nn.Module, one: Tensor, other: Tensor) -> set[str]:
    """Names of the linear layers to quantise: large enough, and called with different inputs for two images."""
    import torch

    wide = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and min(layer.in_features, layer.out_features) >= LEAST
    }
    seen: dict[str, list[Tensor]] = {name: [] for name in wide}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].sum()))
        for name, layer in wide.items()
    ]
    with torch.inference_mode():
        module(one)
        half = {name: len(inputs) for name, inputs in seen.items()}
        module(other)
    for handle in handles:
        handle.remove()
    return {name for name, inputs in seen.items() if inputs[: half[name]] != inputs[half[name] :]}


def _form(program: ExportedProgram) -> dict[str, bytes]:
    import torch

    from nas.model.program import without_traces

    known = torch.export.default_decompositions()
    called = {node.target for node in program.graph.nodes if node.op == "call_function"}
    theirs = {target: known[target] for target in called if getattr(target, "namespace", "") == "torchao"}
    return _archive.archived(without_traces(program.run_decompositions(theirs)))
