"""A small space with conditional parts, estimators that cost nothing, and a worker process to run, signal and kill.

python -m tests.searching.fakes URL NAME TRIALS [--mode join] [--worker N] [--sampler S] [--behave WHAT:DIGEST]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from optuna import Study, create_study
from optuna.distributions import CategoricalDistribution

from nas.core.architecture import Architecture
from nas.core.errors import InputError, exit_on_input_error
from nas.core.space import Space
from nas.core.units import Budget
from nas.model.spaces import shared_rules
from nas.searching.genome import params_of
from nas.searching.objective import Objective
from nas.searching.proposing import Exhausted, Proposer, QueueSampler
from nas.searching.ranking import Ranker
from nas.searching.samplers import MakeSampler, sampler
from nas.searching.study import Mode, Opened, facts_of, open_study
from nas.searching.workers import Dead, Worker

ROOT = Path(__file__).resolve().parents[2]
BLOCK = {
    "mixer": [
        "softmax(heads=[2, 4], head_dim=8)",
        "depthwise(kernel=[3, 5])",
        "spatial_reduction(heads=2, ratio=[2, 8])",
    ]
}
DOCUMENT: dict[str, Any] = {
    "name": "small",
    "input": 32,
    "channels": 1,
    "classes": 10,
    "layouts": {
        "plain": {
            "stages": [
                {
                    "embed": "patch(size=[4, 8])",
                    "dim": 16,
                    "class_token": [True, False],
                    "blocks": [
                        {"repeat": [1, 2], **BLOCK, "feedforward": "mlp"},
                        {"repeat": [0, 1], "mixer": "additive", "feedforward": "mlp(ratio=[1, 2])"},
                    ],
                }
            ],
            "head": ["class_token", "mean"],
        },
        "pyramid": {
            "stages": [
                {"embed": "patch(size=4)", "dim": [8, 16, 24], "blocks": [{**BLOCK, "feedforward": "mlp"}]},
                {"embed": "patch_merging", "dim": 32, "blocks": [{"mixer": "additive", "feedforward": "mlp"}]},
            ],
            "head": "mean",
        },
    },
}
NAMES = ["accuracy", "macs"]


class Figure(NamedTuple):
    """An estimate."""

    value: float
    sigma: float | None = None


class Predicted(NamedTuple):
    """A predicted latency."""

    ms: float
    deviation_ms: float


class Score:
    """An accuracy that is a function of the network, counted; `seen` holds digests in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def estimate(self, architecture: Architecture) -> Figure:
        self.seen.append(architecture.digest)
        return Figure(score(architecture), 0.5)


class Board:
    """A latency that is a function of the network; unknown to it are networks with the operator `unseen`."""

    def __init__(self, unseen: str = ""):
        self._unseen = unseen

    def predict(self, architecture: Architecture) -> Predicted:
        if any(block.mixer.name == self._unseen for block in architecture.blocks):
            raise InputError("the table has no row of an operator", value=self._unseen)
        return Predicted(len(architecture.blocks) + architecture.stages[0].dim / 100, 0.1)


def score(architecture: Architecture) -> float:
    """Between 0 and 100: more blocks are better, the rest is chance that belongs to the network."""
    chance = int.from_bytes(hashlib.sha256(architecture.digest.encode()).digest()[:4], "big") / 2**32
    return 20.0 * len(architecture.blocks) + 40.0 * chance


@cache
def small() -> Space:
    """The space, read once."""
    return Space.parse(DOCUMENT, shared_rules(), "small")


@cache
def networks() -> tuple[Architecture, ...]:
    """All of the space, each once."""
    return tuple(dict.fromkeys(small().every()))


@cache
def genomes() -> dict[Architecture, tuple[dict[str, Any], dict[str, CategoricalDistribution]]]:
    """Parameters and distributions of every network."""
    return {network: params_of(network, small()) for network in networks()}


def facts(**others: Any) -> dict[str, Any]:
    """Those of a search over the space."""
    return facts_of(DOCUMENT, NAMES, **{"seed": 0, "target": "cpu", **others})


def opened(
    url: str,
    objective: Objective,
    mode: Mode = "new",
    name: str = "study",
    heartbeat_s: int = 1,
    grace_s: int = 2,
    **others: Any,
) -> Opened:
    """A study of an objective."""
    directions, settle = objective.directions, Dead(objective)
    return open_study(url, name, directions, facts(**others), settle, mode, heartbeat_s=heartbeat_s, grace_s=grace_s)


class Working(NamedTuple):
    """A worker with its ends."""

    worker: Worker
    trials: int | None
    seconds: float | None

    def work(self) -> str:
        return self.worker.work(self.trials, self.seconds)


def worker(
    url: str,
    accuracy: Any,
    trials: int | None = None,
    *,
    mode: Mode = "new",
    name: str = "study",
    kind: str = "nsga2",
    seed: int = 0,
    number: int = 0,
    budget: Budget | None = None,
    seconds: float | None = None,
    **others: Any,
) -> Working:
    """A worker that is ready to work."""
    objective = Objective(small(), NAMES, budget or Budget(), accuracy)
    study = opened(url, objective, mode, name)
    proposer = Proposer(study.study, objective, making(kind, objective), seed, number)
    return Working(Worker(study, objective, proposer, **others), trials, seconds)


def in_memory(
    kind: str,
    trials: int,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    accuracy: Any = None,
    space: Space | None = None,
) -> Study:
    """A study without a database, after so many trials or at the end of the space."""
    objective = Objective(space or small(), NAMES, budget or Budget(), accuracy or Score())
    study = create_study(directions=objective.directions)
    proposer = Proposer(study, objective, making(kind, objective), seed)
    study.sampler, objective.known = QueueSampler(proposer), proposer.known
    for _ in range(trials):
        proposer.refresh()
        try:
            proposer.queue()
        except Exhausted:
            break
        study.optimize(objective, n_trials=1)
    return study


def making(kind: str, objective: Objective) -> MakeSampler:
    """A sampler with a small population."""
    space, limits = objective.space, objective.budget.limits()
    return sampler(kind, space, population=6, ranker=Ranker(space), objectives=objective.names, limits=limits)


class Behaving(Score):
    """Says on stdout which network it begins with; does as it is told for one of them, or for the n-th."""

    def __init__(self, what: str, which: str, pause_s: float):
        super().__init__()
        self._what, self._which, self._pause_s = what, which, pause_s

    def estimate(self, architecture: Architecture) -> Figure:
        print("begins", architecture.digest, flush=True)
        time.sleep(self._pause_s)
        figure = super().estimate(architecture)
        if architecture.digest == self._which or str(len(self.seen)) == self._which:
            match self._what:
                case "sleep":
                    time.sleep(60)
                case "compute":  # neither returns to Python nor holds its lock
                    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
                case "die":
                    os.kill(os.getpid(), 9)
        return figure


class Moody(Score):
    """Hangs for networks of two blocks, dies for those of three."""

    def estimate(self, architecture: Architecture) -> Figure:
        if len(architecture.blocks) == 2:
            time.sleep(60)
        if len(architecture.blocks) == 3:
            os.kill(os.getpid(), 9)
        return super().estimate(architecture)


def refused() -> Score:
    """An estimator that does not come to be."""
    raise InputError("no such weights", place="weights.safetensors")


@exit_on_input_error
def main() -> int:
    """One worker process; ends with 128 and the number of the signal that ended it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("trials", type=int)
    parser.add_argument("--mode", default="join")
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--sampler", default="nsga2")
    parser.add_argument("--behave", default=":")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--end-s", type=float, default=7.0)
    options = parser.parse_args()
    from nas.searching import signals

    signals.END_S = options.end_s
    accuracy = Behaving(*options.behave.split(":"), options.pause)
    one = worker(
        options.url,
        accuracy,
        options.trials,
        mode=options.mode,
        name=options.name,
        kind=options.sampler,
        number=options.worker,
    )
    print("ready", flush=True)
    print("end", one.work(), flush=True)
    return 128 + one.worker.signal if one.worker.signal is not None else 0


if __name__ == "__main__":
    sys.exit(main())
