"""Distillation: the losses by which a network learns from another, and the teacher that stands beside a supernet.

A teacher is `timm:<model>` (names as in `nas.training.pretrained`: timm's weights, or fresh ones with `@random`) in
timm's own wrapper `timm.task.DistillationTeacher`, or the folder of a run of nas.train, whose largest network teaches.
timm's tasks run their one student themselves and return sums; the losses here are the teacher's part of them, for a
student that changes at every step:

logit       T^2 KL(teacher || student) of the probabilities at temperature T, mean over images (Hinton et al., 2015,
            https://arxiv.org/abs/1503.02531)
token       the same for the classifier that reads the distillation token alone; the labels are the other classifier's
token_hard  cross-entropy of that classifier with the teacher's decision (Touvron et al., "DeiT", ICML 2021,
            https://arxiv.org/abs/2012.12877)
feature     mean squared difference between what the teacher's classifier reads and a linear projection of what the
            student's reads (Romero et al., "FitNets", ICLR 2015, https://arxiv.org/abs/1412.6550)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.core.architecture import NONE
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.model.extremes import extremes
from nas.model.network import Network
from nas.model.supernet import Supernet
from nas.ops.base import Head
from nas.ops.catalogue import Catalogue
from nas.ops.tokens import Tokens
from nas.training.config import Distillation
from nas.training.data.base import Data

KINDS = ("logit", "token", "token_hard", "feature")
TIMM = "timm:"
CALIBRATION = 512  # images for the batch norms of a run's network

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation, one a channel or one for all


class Prepared(NamedTuple):
    """What a teacher says of a batch: its logits, or the features (B, C) that its classifier reads."""

    told: Tensor


class Model(NamedTuple):
    """A frozen network that teaches, and how it reads images."""

    network: nn.Module
    features: Callable[[Tensor], Tensor]  # what its classifier reads
    width: int  # of them
    classes: int
    size: int  # pixels of a side
    channels: int
    normalisation: Normalisation | None  # of its images; None: as they come


@runtime_checkable
class TwoClassifiers(Protocol):
    """A head with a classifier for the labels and one for the teacher (None: it has only the first)."""

    def both(self, tokens: Tokens) -> tuple[Tensor, Tensor]: ...


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times the cross-entropy of the student's with the teacher's probabilities at temperature T, mean over images.

    In single precision; its gradient is that of the KL divergence, and stays of one size whatever the temperature.
    """
    wanted = (teacher.detach().float() / temperature).softmax(dim=-1)
    return temperature**2 * F.cross_entropy(logits.float() / temperature, wanted)


def divergence(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of the probabilities at temperature T, mean over images: zero where they agree."""
    own = (logits.float() / temperature).log_softmax(dim=-1)
    wanted = (teacher.detach().float() / temperature).log_softmax(dim=-1)
    return temperature**2 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)


class Teacher(nn.Module):
    """A frozen network beside a supernet. Only the projection of features has parameters, and a state, of its own."""

    def __init__(
        self,
        model: Model,
        kind: str,
        weight: float,
        temperature: float = 1.0,
        widths: frozenset[int] = frozenset(),
        images: Normalisation | None = None,
        like: Tensor | None = None,
    ):
        """widths: of the students' features. images: how those of the data are normalised, if known."""
        super().__init__()
        if kind not in KINDS:
            raise InputError("unknown kind of distillation", value=kind, nearest=nearest(kind, KINDS))
        like = torch.empty(0) if like is None else like
        self.kind, self.weight, self.temperature = kind, weight, temperature
        for parameter in model.network.parameters():
            parameter.requires_grad_(False)
        model.network.to(like.device).eval()
        self._model = (model,)  # within a tuple, so that it is no part of this module's parameters and state
        self._rescale = _rescale(images, model, like)
        self.projection: Projection | None = None
        if kind == "feature":
            self.projection = Projection(max(widths), model.width) if widths != {model.width} else None
        self.to(like.device)

    @classmethod
    def of(cls, config: Distillation, data: Data, supernet: Supernet) -> Teacher:
        """The teacher that a configuration names, for the networks of a supernet, on its device."""
        widths = _check_students(config.kind, supernet.space, supernet.operators)
        name = config.teacher
        model = _timm_model(name.removeprefix(TIMM), data) if name.startswith(TIMM) else _run_model(name, data)
        if config.kind != "feature" and model.classes != data.classes:
            rule = f"the teacher tells {model.classes} classes apart, the data has {data.classes}"
            raise InputError(f"{rule}; kind feature asks for no classes", value=config.kind, place=name)
        like = next(supernet.parameters())
        return cls(model, config.kind, config.weight, config.temperature, widths, _normalisation(data), like)

    @torch.no_grad()
    def prepare(self, images: Tensor) -> Prepared:
        """What the teacher says of a batch: once, whatever the number of students."""
        (model,) = self._model
        if images.shape[1] != model.channels:
            images = images.expand(-1, model.channels, -1, -1) if images.shape[1] == 1 else images.mean(1, keepdim=True)
        if self._rescale is not None:
            factor, offset = self._rescale
            images = images * factor + offset
        if images.shape[-1] != model.size:
            images = F.interpolate(images, size=(model.size, model.size), mode="bicubic", antialias=True)
        read = model.features if self.kind == "feature" else model.network
        return Prepared(read(images).float())

    def loss(self, network: Network, tokens: Tokens | None, logits: Tensor, prepared: Prepared) -> Tensor:
        """The teacher's part of the loss, for a network with its state after the last block and its logits."""
        told = prepared.told
        if self.kind == "logit":
            return divergence(logits, told, self.temperature)
        assert tokens is not None, "networks with exits were refused"
        if self.kind == "feature":
            features = network.head(tokens, pre_logits=True).float()
            return F.mse_loss(features if self.projection is None else self.projection(features), told)
        own = _both(network.head, tokens)[1]
        if self.kind == "token_hard":
            return F.cross_entropy(own.float(), told.argmax(dim=-1))
        return divergence(own, told, self.temperature)

    def logits(self, network: Network, tokens: Tokens) -> Tensor:
        """The logits that learn the labels: with a distillation token those of the class token's classifier alone."""
        return _both(network.head, tokens)[0] if self.kind in ("token", "token_hard") else network.head(tokens)


class Projection(nn.Module):
    """A linear layer from features of several widths: a narrow student's are multiplied by its leading columns.

    The first weights are those of torch's linear layer, from a generator of its own, so that all processes agree.
    """

    def __init__(self, width: int, wanted: int):
        super().__init__()
        chance, most = torch.Generator().manual_seed(0), width**-0.5
        self.weight = nn.Parameter(torch.empty(wanted, width).uniform_(-most, most, generator=chance))
        self.bias = nn.Parameter(torch.empty(wanted).uniform_(-most, most, generator=chance))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[-1]], self.bias)


def _both(head: Head, tokens: Tokens) -> tuple[Tensor, Tensor]:
    assert isinstance(head, TwoClassifiers)
    return head.both(tokens)


def _check_students(kind: str, space: Space, operators: Catalogue) -> frozenset[int]:
    """Widths of the features of all networks of a space; InputError where one of them cannot learn in this way."""
    widths: set[int] = set()
    if kind == "logit":
        return frozenset()
    for place, what, values, form in space.reachable():
        if what == "exit" and any(value is not NONE for value in values):
            raise InputError(f"{kind} distillation is for networks without exits", place=f"{space.name}: {place}")
        for spec in values if what == "head" else ():
            with torch.device("meta"):
                cls = operators.get("head", spec.name)
                head = cls(form.site(), classes=space.template.classes, **dict(spec.knobs))
            if kind == "feature":
                widths.add(_width(head))
            elif not isinstance(head, TwoClassifiers) or head.teacher is None:
                rule = f"{kind} distillation needs heads with a classifier for the teacher, such as distilled"
                raise InputError(rule, value=str(spec), place=f"{space.name}: head")
    return frozenset(widths)


def _width(head: nn.Module) -> int:
    """Of what the classifier reads."""
    assert isinstance(head.classifier, nn.Linear)
    return head.classifier.in_features


def _timm_model(name: str, data: Data) -> Model:
    """timm's network in timm's wrapper; fresh weights (`@random`) are the same at every start."""
    try:
        from timm.task import DistillationTeacher
    except ImportError:
        raise InputError("this timm has no timm.task: a newer one is needed to teach with its networks") from None
    from nas.training.pretrained import RANDOM, _timm_network

    made: Any
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made, _ = _timm_network(name, {"num_classes": data.classes if name.endswith(RANDOM) else None})
    wrapped, told = DistillationTeacher(made), made.pretrained_cfg
    channels, size, _ = told["input_size"]
    return Model(
        network=made,
        features=lambda images: wrapped(images, return_features=True),
        width=getattr(made, "head_hidden_size", made.num_features),
        classes=made.num_classes,
        size=size,
        channels=channels,
        normalisation=(tuple(told["mean"]), tuple(told["std"])),
    )


def _run_model(folder: str, data: Data) -> Model:
    """The largest network of a run, by multiply-accumulates; images come normalised as those that it was trained on."""
    from nas.training.evaluating import has_batch_norm, recalibrate
    from nas.training.start import trained

    if not Path(folder).is_dir():
        raise InputError(f"a teacher is {TIMM}<model> or the folder of a run", value=folder)
    run = trained(folder)
    network = run.supernet.extract(extremes(run.space).largest)
    architecture = network.architecture
    if has_batch_norm(network) and (architecture.input, architecture.channels) == (data.size, data.channels):
        recalibrate(network, data, CALIBRATION)

    def features(images: Tensor) -> Tensor:
        return network.head(network.forward_tokens(images), pre_logits=True)

    shape = (architecture.classes, architecture.input, architecture.channels)
    return Model(network, features, _width(network.head), *shape, normalisation=None)


def _normalisation(data: Data) -> Normalisation | None:
    """How the images of timm's data sets are normalised; that of other data is its own."""
    from nas.training.data.timm_data import TimmData, normalisation

    return normalisation(data.channels) if isinstance(data, TimmData) else None


def _rescale(images: Normalisation | None, model: Model, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Factor and offset from images as the data has them to images as the teacher knows them."""
    if images is None or model.normalisation is None or images == model.normalisation:
        return None
    mean, deviation, wanted, spread = (
        torch.tensor(values, dtype=torch.float64).expand(max(len(values), model.channels))[: model.channels]
        for values in (*images, *model.normalisation)
    )
    factor, offset = deviation / spread, (mean - wanted) / spread
    return tuple(x.to(like.device, torch.float32)[:, None, None] for x in (factor, offset))  # type: ignore[return-value]
