"""What a training run is told. Every figure has the value of the digits example; a file or `--set` changes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nas.core.config import Strict
from nas.model.elastic import Elastic
from nas.training.data.augment import Augment


class Networks(Strict):
    """Which networks of the space a step trains, and how."""

    strategy: Literal["single", "sandwich", "batch"] = "sandwich"
    random: PositiveInt = 2  # random networks a step; sandwich adds the largest and the smallest
    band: str | None = None  # "1GMACs-2GMACs": only networks of so many multiply-accumulates
    balanced: bool = False  # uniform over multiply-accumulates rather than over decisions
    inplace: bool = True  # the largest of a sandwich teaches the others
    temperature: float = Field(default=1.0, gt=0)


class Distillation(Strict):
    """A teacher that stands beside the networks."""

    teacher: str  # timm:<model> (@random at its end: fresh weights), or a run's folder
    kind: Literal["logit", "token", "token_hard", "feature"] = "logit"
    weight: float = Field(default=0.5, ge=0, le=1)  # of the teacher's part in the loss
    temperature: float = Field(default=1.0, gt=0)


class Optimization(Strict):
    """timm's optimisers and schedules by their names there. Steps are those of the optimiser."""

    optimizer: str = "adamw"
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    schedule: str = "cosine"
    warmup: NonNegativeInt = 100  # steps
    min_lr: float = Field(default=1e-5, ge=0)
    clip: float | None = Field(default=1.0, gt=0)  # norm of the gradient
    accumulate: PositiveInt = 1  # parts of a batch that go through one after the other
    ema: float = Field(default=0.0, ge=0, lt=1)  # decay of the averaged weights; 0 is none


class TrainConfig(Strict):
    """A whole run."""

    space: str = "digits"
    arch: str | None = None  # an architecture file or reference network: train this one alone
    init: str | None = None  # a run's folder, or timm:<model>
    data: str = "digits"
    data_root: str | None = None
    data_seed: NonNegativeInt = 0  # of the splits; runs that are compared share it
    size: PositiveInt | None = None  # pixels of a side; the space's own without
    steps: PositiveInt = 1200
    minutes: float | None = Field(default=None, gt=0)  # stop after so long, with a checkpoint to go on from
    batch: PositiveInt = 32  # over all processes
    workers: NonNegativeInt = 0  # that read and augment images
    elastic: Elastic = Elastic()  # of a network of timm's
    importance: NonNegativeInt = 256  # training images by which its units are ranked; 0 ranks by the weights
    networks: Networks = Networks()
    distillation: Distillation | None = None
    optimization: Optimization = Optimization()
    augment: Augment | None = None  # what is usual with the data; {} is none at all
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    checkpointing: bool = False  # of activations: less memory, more time
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "cpu"
    seed: NonNegativeInt = 0
    save_every: PositiveInt = 200  # steps
    keep: PositiveInt = 3  # checkpoints
    evaluate_every: NonNegativeInt = 500  # steps; 0 is at the end only
    calibration: NonNegativeInt = 512  # images for batch norms of an evaluated network
    bad_steps: NonNegativeInt = 3  # times that a loss that is not finite is answered by going back
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []
