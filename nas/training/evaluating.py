"""Accuracy and loss of sub-networks with the weights that they inherit, each measured once.

Where a network has batch norms, their statistics are those of no sub-network in particular; they are estimated again on
a stated number of training images, on a copy. A result is kept in a checked file under what it depends on:
architecture, weights, data, split and calibration images. Files appear whole, so several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import read_json, write_json
from nas.model.supernet import Supernet

if TYPE_CHECKING:
    from nas.training.data.base import Data


@dataclass(frozen=True)
class Evaluation:
    """How good a network is: accuracy 0..1, mean cross-entropy (infinite where logits are not finite), over `images`.

    calibrated_on: training images that its batch norms were estimated on, 0 where it has none. seconds: as measured,
    also where the result came from the cache.
    """

    accuracy: float
    loss: float
    images: int
    calibrated_on: int = 0
    seconds: float = 0.0
    cached: bool = False


def evaluate(
    network: nn.Module, data: Data, split: str, batch: int = 256, device: torch.device | str | None = None
) -> Evaluation:
    """Accuracy and loss over a whole split, in eval mode; the network is left in the mode it had.

    device: where to run, by default where the network is; it is moved there.
    """
    length, started, training = data.length(split), time.perf_counter(), network.training
    if not length:
        raise InputError("a split to evaluate on has images", value=split, place=data.name)
    like = next(network.to(device).parameters() if device is not None else network.parameters())
    right, loss = 0, torch.zeros((), dtype=torch.float64)
    network.eval()
    try:
        with torch.inference_mode():
            for start in range(0, length, batch):
                images, labels = _read(data, split, range(start, min(start + batch, length)), like)
                logits = network(images).float()
                right += int(((logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)).sum())
                loss += F.cross_entropy(logits, labels, reduction="sum").double().cpu()
    finally:
        network.train(training)
    mean = float(loss) / length
    return Evaluation(
        accuracy=right / length,
        loss=mean if math.isfinite(mean) else math.inf,
        images=length,
        seconds=time.perf_counter() - started,
    )


def has_batch_norm(network: nn.Module) -> bool:
    """Whether some module of it keeps running statistics of batches."""
    return bool(_batch_norms(network))


def recalibrate(network: nn.Module, data: Data, images: int, batch: int = 256) -> int:
    """Estimate the statistics of every batch norm again, in place, on training images without augmentation.

    They are the plain average over batches of nearly equal size. Everything but the batch norms stays in eval mode. The
    images are spread evenly over the training split, which may be sorted by class. Returns how many were used: 0 where
    there is no batch norm, else the number asked, at most the split's length.
    """
    norms = _batch_norms(network)
    if not norms:
        return 0
    images = min(images, data.length("train"))
    if images < 2:
        raise InputError("batch norms are estimated on at least two training images", value=images, place=data.name)
    training, momenta = network.training, [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.training = True
    try:
        with torch.no_grad():
            for shown, _ in calibration_batches(data, images, batch, next(network.parameters())):
                network(shown)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)
    return images


def calibration_batches(
    data: Data, images: int, batch: int = 256, like: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """So many training images with labels, without augmentation, spread evenly over the split, in batches of nearly
    equal size; `like` gives device and precision."""
    length = data.length("train")
    images = min(images, length)
    chosen = [place * length // images for place in range(images)]
    parts = -(-images // batch)
    for part in range(parts):
        yield _read(data, "train", chosen[part * images // parts : (part + 1) * images // parts], like)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and persistent buffer, wherever they lie.

    Tensors are hashed side by side: 225 M parameters of 4 bytes took 1.4 s on two cores.
    """
    state = sorted(module.state_dict().items())
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(_tensor_digest, (tensor for _, tensor in state)))
    described = [
        (name, str(value.dtype), list(value.shape), own) for (name, value), own in zip(state, hashes, strict=True)
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


class Evaluator:
    """Evaluations of sub-networks of one supernet on one split of one data set.

    The hash of the weights is taken when it is first needed, and again once an optimiser step, a copy into the bank or
    `refresh` says that they changed; writing through `.data` is not seen, so call `refresh` after it. The cache is a
    folder, made if need be, or None to keep nothing. calibration: training images for batch norms.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        split: str = "search",
        cache: Path | str | None = None,
        calibration: int = 512,
        batch: int = 256,
    ):
        self.supernet = supernet
        self.data = data
        self.split = split
        self.cache = None if cache is None else Path(cache)
        self.calibration = calibration
        self.batch = batch
        self._digest: str | None = None
        self._stamp: tuple[tuple[int, int], ...] = ()

    def refresh(self) -> None:
        """The weights changed in a way that torch does not count."""
        self._digest = None

    def of(self, architecture: Architecture) -> Evaluation:
        """The evaluation of one sub-network, from the cache where it is there and sound."""
        self._check(architecture)
        if self.cache is None:
            return self._measure(architecture)
        key = self._key(architecture)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self.cache / name[:2] / f"{name}.json"
        known = _known(path, key)
        if known is None:
            known = self._measure(architecture)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"the folder cannot be made ({error.strerror})", place=str(path.parent)) from None
            loss = known.loss if math.isfinite(known.loss) else None  # JSON has no infinity
            write_json(path, {"of": key, "result": {**vars(known), "loss": loss}})
        return known

    def _key(self, architecture: Architecture) -> dict[str, Any]:
        stamp = tuple((tensor.data_ptr(), tensor._version) for tensor in self.supernet.state_dict().values())
        if self._digest is None or stamp != self._stamp:
            self._digest, self._stamp = weights_digest(self.supernet), stamp
        return {
            "architecture": architecture.digest,
            "weights": self._digest,
            "data": self.data.fingerprint,
            "split": self.split,
            "calibration": self.calibration,
        }

    def _measure(self, architecture: Architecture) -> Evaluation:
        started, calibrated = time.perf_counter(), 0
        network = self.supernet.bind(architecture)
        if has_batch_norm(network):
            network = self.supernet.extract(architecture)
            calibrated = recalibrate(network, self.data, self.calibration, self.batch)
        found = evaluate(network, self.data, self.split, self.batch)
        return replace(found, calibrated_on=calibrated, seconds=time.perf_counter() - started)

    def _check(self, architecture: Architecture) -> None:
        """Refuse a network that reads other images than the data has, or tells other classes apart."""
        data = self.data
        for name, wanted, held in (
            ("input", architecture.input, data.size),
            ("channels", architecture.channels, data.channels),
            ("classes", architecture.classes, data.classes),
        ):
            if wanted != held:
                rule = f"the network's {name} are those of the data, {held}"
                raise InputError(rule, value=wanted, place=f"{data.name}: {architecture.digest[:12]}")


def _known(path: Path, key: dict[str, Any]) -> Evaluation | None:
    """The result kept in a file; None where there is none, or where it is damaged or of something else."""
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if content["of"] != key:
            return None
        result = content["result"]
        loss = math.inf if result["loss"] is None else result["loss"]
        return Evaluation(**{**result, "loss": loss, "cached": True})
    except (InputError, TypeError, KeyError):
        return None  # measured again, and written over


def _read(data: Data, split: str, indices: range | list[int], like: Tensor | None) -> tuple[Tensor, Tensor]:
    images, labels = (torch.as_tensor(value) for value in data.read(split, list(indices)))
    return (images, labels) if like is None else (images.to(like.device, like.dtype), labels.to(like.device))


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _tensor_digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
