"""Python: the network as one readable module that imports torch alone, and its weights.

The module is made from the project's own source, less all that this network never runs (nas/exporting/source). Results
are those of the network bit for bit in eval mode; names of weights are the same.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nas.core.runs import write_whole
from nas.exporting.targets import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from nas.exporting.subject import Subject

about = "one readable Python module (model.py, model.safetensors): torch alone runs it"
PACKAGES = ("torch",)
TOLERANCE = 0.0
MODULE, WEIGHTS = "model.py", "model.safetensors"


def write(subject: Subject, folder: Path) -> None:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in subject.network.state_dict().items()}
    write_whole(folder / MODULE, text(subject))
    write_whole(folder / WEIGHTS, save(state, {"format": "pt"}))


def text(subject: Subject) -> str:
    """The module's text."""
    from nas.exporting.source.arrays import NoTorchForm
    from nas.exporting.source.module import module_text
    from nas.ops.catalogue import catalogue

    try:
        return module_text(subject.network, header(subject), catalogue())
    except NoTorchForm as error:
        raise Refused(str(error)) from None


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    import torch

    from nas.latency.runtimes._torch import threads as with_threads
    from nas.latency.target import Target

    network, target = opened(folder).load(folder / WEIGHTS), Target(threads=threads)

    def call() -> Tensor:
        with with_threads(target), torch.inference_mode():
            return network(images)

    return call


def opened(folder: Path) -> ModuleType:
    """The module of a folder, imported under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"exported_{secrets.token_hex(8)}", folder / MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def usage(name: str) -> str:
    return f"""import torch
from python.model import load  # or `from model import load` within the folder

network = load("python/{WEIGHTS}")
with torch.no_grad():
    logits = network(images)  # float32, (batch, channels, height, width)
"""


def header(subject: Subject) -> str:
    """What the module says of itself."""
    from nas import __version__
    from nas.model.costs import Costs
    from nas.reporting.finished import LABELS

    architecture, cost = subject.architecture, Costs().cost(subject.architecture)
    side = f"{architecture.channels}, {architecture.input}, {architecture.input}"
    weights = str(subject.source.get("weights", "")) if subject.trained else "random"
    weights = "".join(c if c.isprintable() else "?" for c in weights)  # a folder may be called anything
    told = {label: subject.figures.get(name) for name, label in LABELS.items() if name not in ("macs", "params")}
    lines = [
        f"{subject.name}: an image classifier, whole in this file.",
        "",
        f"Images (B, {side}) in float32 to logits (B, {subject.network.num_classes}). {cost.params:,} parameters,",
        f"{cost.macs:,} multiply-accumulates an image.",
        *([f"Weights: {weights}."] if weights else []),
        *(f"{label[0].upper()}{label[1:]}: {value:.6g}." for label, value in told.items() if value is not None),
        "",
        "    from model import load",
        "",
        f'    network = load("{WEIGHTS}")',
        "    logits = network(images)",
        "",
        "Needs torch and nothing else; `python model.py` shows that it runs. A state of tokens (`Tokens`) goes through",
        "stages of blocks; each operator says where it comes from.",
        f"Written by nas {__version__} from its own source. Licence: Apache-2.0,",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ]
    return "\n".join(lines)
