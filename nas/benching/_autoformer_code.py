"""AutoFormer's published supernet (Chen et al., ICCV 2021; github.com/microsoft/Cream), run from a folder.

None of that code is here: the caller names a copy of it. It asks for a module of torch that is gone since 1.13 and of
which it takes one name; that name is lent to it. Configured as their supernet-T.yaml with --change_qkv, without
relative positions, which is what the space `tiny` describes and the faster of their two ways.
"""

from __future__ import annotations

import importlib
import sys
from collections import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nas.core.architecture import Architecture
from nas.core.errors import InputError

FILE = "model/supernet_transformer.py"
MAXIMA = {"embed_dim": 256, "depth": 14, "num_heads": 4, "mlp_ratio": 4.0}  # their experiments/supernet/supernet-T.yaml
DEFAULTS = {"heads": 3, "ratio": 4}  # of our operators, which architectures leave out


def their_step(
    supernet: Any, networks: Sequence[Architecture], parameters: Sequence[int], batch: Any
) -> Callable[[], None]:
    """A training step of these networks with their class of supernets: forward and backward of each, and one update."""
    import torch
    from timm.optim._optim_factory import create_optimizer_v2

    model = supernet(qkv_bias=True, change_qkv=True, num_classes=networks[0].classes, **MAXIMA)
    configs = [_config(architecture) for architecture in networks]
    for config, count in zip(configs, parameters, strict=True):
        if (found := model.get_sampled_params_numel(config)) != count:
            raise InputError(f"not the same network: {found} parameters there, {count} here")
    update = create_optimizer_v2(model, "adamw", lr=1e-4, weight_decay=0.05)

    def step() -> None:
        for config in configs:
            model.set_sample_config(config)
            loss = torch.nn.functional.cross_entropy(model(batch.images), batch.targets)
            (loss / len(configs)).backward()
        update.step()
        update.zero_grad()

    return step


def their_supernet(folder: str) -> Any:
    """The class in a copy of their code; InputError where it is none."""
    if not (Path(folder) / FILE).is_file():
        raise InputError(f"no copy of AutoFormer's code: it has no {FILE}", place=folder)
    lent = ModuleType("torch._six")
    lent.container_abcs = abc  # type: ignore[attr-defined]
    sys.modules.setdefault("torch._six", lent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("model.supernet_transformer").Vision_TransformerSuper
    finally:
        sys.path.remove(folder)


def _config(architecture: Architecture) -> dict[str, Any]:
    """The same network in their words."""
    knobs = [{**DEFAULTS, **dict(block.mixer.knobs), **dict(block.feedforward.knobs)} for block in architecture.blocks]
    return {
        "layer_num": len(knobs),
        "embed_dim": [architecture.stages[0].dim] * len(knobs),
        "num_heads": [each["heads"] for each in knobs],
        "mlp_ratio": [each["ratio"] for each in knobs],
    }
