"""timm: a checkpoint folder (config.json, model.safetensors) that `timm.create_model("local-dir:...")` loads.

A network that timm has as well (nas.exporting.stock) loads with timm alone; any other is the registered `nas_network`,
for which `import nas.models` comes first. Written by timm's own `save_for_hf`, safetensors only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.exporting.subject import Subject

about = "a timm checkpoint folder for local-dir: and hf-hub:, a stock model of timm's where the network is one"
PACKAGES = ("timm", "safetensors")
TOLERANCE = 1e-4  # a stock model has one product for queries, keys and values where the network has three


def write(subject: Subject, folder: Path) -> None:
    from safetensors import SafetensorError
    from timm.models import save_for_hf

    from nas.core.errors import InputError

    model, args = model_of(subject)
    try:
        save_for_hf(model, str(folder), model_args=args, safe_serialization=True)
        shutil.copymode(folder / "config.json", folder / "model.safetensors")  # which else its owner alone may read
    except (OSError, SafetensorError) as error:  # what safetensors tells of a full disk
        raise InputError(f"the file cannot be written ({error})", place=str(folder)) from error


def load(folder: Path, images: Tensor, threads: int = 1) -> Callable[[], Tensor]:
    import torch

    from nas.latency.runtimes._torch import threads as with_threads
    from nas.latency.target import Target

    model, target = loaded(folder), Target(threads=threads)

    def call() -> Tensor:
        with with_threads(target), torch.inference_mode():
            return model(images)

    return call


def usage(name: str) -> str:
    return (
        "import timm\n"
        "import nas.models  # only where timm/config.json says nas_network; stock networks need timm alone\n"
        "\n"
        f'model = timm.create_model("local-dir:/path/to/{name}/timm", pretrained=True).eval()'
    )


def loaded(folder: Path) -> nn.Module:
    """The model of a folder, as timm makes it, in eval mode."""
    import timm

    import nas.exporting.registered  # noqa: F401
    from nas.training.data.randomness import seeded

    with seeded(0):  # timm draws weights before it reads them
        model: nn.Module = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True)
    return model.eval()


def model_of(subject: Subject) -> tuple[nn.Module, dict[str, Any]]:
    """timm's model with the network's weights, and the arguments that make it again."""
    from nas.exporting.registered import NAME, classifiers
    from nas.exporting.stock import stock_of, timm_state

    stock = stock_of(subject.architecture)
    if stock is not None:
        model = _created(subject, stock.name, stock.args)
        state = timm_state(subject.network, model, stock.family)
        if state is not None:
            model.load_state_dict(state)
            return model, stock.args
    args = {"network": subject.architecture.to_dict()}
    known = {"classifier": classifiers(subject.architecture), "first_conv": None, "fixed_input_size": True}
    model = _created(subject, NAME, args, known)
    model.load_state_dict({f"network.{name}": value for name, value in subject.network.state_dict().items()})
    return model, args


def _created(subject: Subject, name: str, args: dict[str, Any], known: dict[str, Any] | None = None) -> nn.Module:
    """A model of timm's with what is known of its input; nothing of other weights of that name (source, licence)."""
    import timm

    from nas.training.data.randomness import seeded

    if known is None:
        usual = timm.models.get_pretrained_cfg(name)
        assert usual is not None
        known = {key: getattr(usual, key) for key in ("classifier", "first_conv", "pool_size", "fixed_input_size")}
    architecture = subject.architecture
    config = {
        "architecture": name,
        "input_size": (architecture.channels, architecture.input, architecture.input),
        "num_classes": architecture.classes,
        "interpolation": "bicubic",
        **normalisation(subject),
        **known,
    }
    with seeded(0):
        model: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg=config, **args)
    return model.eval()


def normalisation(subject: Subject) -> dict[str, Any]:
    """Mean, deviation and crop of the images that the weights were trained on; (0, 1) where images come normalised."""
    channels = subject.architecture.channels
    told = subject.source.get("data") or {}
    unknown = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "crop_pct": 1.0}
    return {key: told.get(key, value) for key, value in unknown.items()}
