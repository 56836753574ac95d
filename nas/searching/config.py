"""What a search is told: a YAML file, `--set key=value` and the door's flags, each over the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nas.core.config import Strict, resolve
from nas.core.errors import InputError
from nas.core.units import Budget, parse_budget

SamplerName = Literal["evolution", "nsga2", "nsga3", "tpe", "gp", "random"]
ObjectiveName = Literal["accuracy", "latency_ms", "macs", "params", "memory_mb"]


class Rung(Strict):
    """A rung of the ladder: an estimator that judges the best networks of the rung below, or of the search, again."""

    accuracy: str  # an estimator of nas.accuracy
    keep: PositiveInt | None = None  # networks that it judges; none: a third of those below
    steps: PositiveInt | None = None  # of short training; none: those of the search
    limit_s: float = Field(default=3600.0, gt=0)  # for one network

    @property
    def name(self) -> str:
        """The estimator, and its steps where they are its own."""
        return self.accuracy if self.steps is None else f"{self.accuracy}:{self.steps}"


class SearchConfig(Strict):
    """A whole search. Times are in minutes for the run, in seconds for one network."""

    space: str = "mixed"  # a shipped name, or a file
    target: str = "cpu"  # device, runtime and options, as `nas.measure` has them
    budget: str | None = None  # "2GFLOPs, 6M params, 12ms, 80MB"; none: no limits
    objectives: list[ObjectiveName] = Field(default=["accuracy", "latency_ms"], min_length=1, max_length=3)
    accuracy: str = "prior"  # an estimator of nas.accuracy
    run: str | None = None  # of nas.train, for estimators by trained weights; its space is then searched
    steps: PositiveInt = 200  # of short training
    images: int = Field(default=32, ge=2)  # that an estimator looks at
    data: str | None = None  # where they come from; none: noise
    data_root: str | None = None
    trials: PositiveInt | None = None  # networks to evaluate, over all workers
    minutes: float | None = Field(default=None, gt=0)
    limit_s: float | None = Field(default=None, gt=0)  # for one network, which is then judged in a process of its own
    seed: NonNegativeInt = 0
    sampler: SamplerName = "evolution"
    population: int = Field(default=50, ge=2)  # of genetic samplers
    ladder: list[Rung] = []  # what judges the best networks again after the search, the cheapest first
    front: PositiveInt = 16  # members that are shown and measured on the device, evenly along the front
    start: list[str] = []  # reference networks and architecture files to begin with
    name: str = Field(default="search", min_length=1, max_length=100)  # of the study in its storage
    storage: str | None = None  # an address; none: study.db in the run's folder
    workers: PositiveInt = 1  # processes on this machine, or jobs
    launcher: Literal["here", "slurm"] = "here"  # slurm: workers are jobs, and share a database
    jobs: dict[str, str | int | float | bool] = {}  # parameters of submitit's AutoExecutor
    heartbeat_s: PositiveInt = 10
    grace_s: PositiveInt = 60  # without a heartbeat, after which a worker is taken for dead
    allow_mismatch: list[str] = []  # differences to accept in a table of latencies

    def on(self, rung: Rung) -> SearchConfig:
        """The configuration with the estimator of a rung."""
        return self.model_copy(update={"accuracy": rung.accuracy, "steps": rung.steps or self.steps})

    @property
    def limits(self) -> Budget:
        """The budget; InputError for a text that is none."""
        return Budget() if self.budget is None else parse_budget(self.budget)


def load_config(
    path: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> SearchConfig:
    """The resolved configuration; InputError names the file or option, the key, the rule and the nearest keys.

    base: what is below the file and the flags, in place of the model's own values.
    """
    config = resolve(SearchConfig, path, sets, flags or {}, base)
    if config.run is not None and config.space == SearchConfig.model_fields["space"].default:
        config = config.model_copy(update={"space": f"{config.run}/space.yaml"})
    if config.trials is None and config.minutes is None:
        raise InputError("a search has a number of trials or a time", place="the configuration: trials, minutes")
    if len(set(config.objectives)) != len(config.objectives):
        raise InputError("each objective is named once", list(config.objectives), "the configuration: objectives")
    names = [config.accuracy, *(rung.name for rung in config.ladder)]
    if config.ladder and "accuracy" not in config.objectives:
        raise InputError("a ladder judges accuracy, which is no objective", names[1:], "the configuration: ladder")
    if len(set(names)) != len(names):
        raise InputError("each rung has another estimator, or other steps", names, "the configuration: ladder")
    _ = config.limits
    return config
