"""A whole search: from a configuration to the networks that were evaluated."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.units import format_count
from nas.latency.latency import Latency
from nas.model.extremes import Extremes, extremes
from nas.model.reference import named_network
from nas.model.spaces import load_named_space, space_document
from nas.searching.config import SearchConfig
from nas.searching.isolated import Isolated
from nas.searching.objective import Accuracy, Objective
from nas.searching.objective import Latency as Predictions
from nas.searching.proposing import Proposer
from nas.searching.ranking import PlaceTimes, Ranker
from nas.searching.results import Known, results_of
from nas.searching.samplers import sampler, seed_of
from nas.searching.signals import SIGNALS
from nas.searching.storage import masked, passes, storage_url
from nas.searching.study import Mode, Opened, facts_of, open_study
from nas.searching.workers import Dead, Worker

END_S = 10.0  # that worker processes may take to end
LOOK_S = 0.2
TOLD_S = 5.0  # between two looks at what workers have found

Look = Callable[[], None]
Launch = Callable[[Sequence[int], Look], int | None]  # workers of these numbers to their end; the signal that made it


class Searched(NamedTuple):
    """A finished search.

    rows     of `results_of`, in order of trials
    end      trials, time, exhausted, or signal, with its number
    notices  things to tell: where latencies come from, start networks left out
    leads    whether it is this process that brings the search to its end, of all that work at the study
    """

    rows: list[dict[str, Any]]
    objectives: list[str]
    directions: list[str]
    end: str
    signal: int | None
    storage: str
    notices: list[str]
    leads: bool


def run_search(
    config: SearchConfig,
    folder: str | Path,
    mode: Mode = "new",
    *,
    worker: int | None = None,
    launch: Launch | None = None,
    seconds: float | None = None,
    accuracy: Accuracy | None = None,
    latency: Predictions | None = None,
    times: PlaceTimes | None = None,
    told: Callable[[Known], None] | None = None,
) -> Searched:
    """Search, or go on with a search.

    folder   of the run, which exists
    mode     new, resume, or join (as one of several workers, `worker` its number where it was given one)
    launch   how workers are run where this process is not to be the only one
    seconds  in place of the configuration's minutes
    accuracy, latency  in place of those that the configuration names
    times    latencies of operators, by which the sampler `evolution` ranks where latency matters
    """
    space = load_named_space(config.space)
    notices: list[str] = []
    if latency is None and ("latency_ms" in config.objectives or config.limits.latency_ms is not None):
        found = Latency(config.target, frozenset(config.allow_mismatch))
        latency, notices = found, [f"latency: {found.source}", *found.notices]
        times = found if times is None else times
    with ExitStack() as open_things:
        if accuracy is None and "accuracy" in config.objectives:
            accuracy = make_accuracy(config) if config.limit_s is None else _isolated(config, open_things)
        objective = Objective(space, config.objectives, config.limits, accuracy, latency)
        check_budget(objective)
        url = storage_url(config.storage, folder)
        opened = _opened(config, url, objective, mode)
        make = sampler(
            config.sampler,
            space,
            population=config.population,
            ranker=Ranker(space, latency=times),
            objectives=config.objectives,
            limits=config.limits.limits(),
        )
        leads = mode != "join" or opened.made
        if worker is None:  # two of the same number would propose the same networks
            worker = 0 if leads else seed_of(zlib.crc32(platform.node().encode()), os.getpid())
        proposer = Proposer(opened.study, objective, make, config.seed, worker)
        if leads:
            notices += _start(config, space, proposer)
        seconds = 60 * config.minutes if seconds is None and config.minutes is not None else seconds
        begun, ended_by = time.monotonic(), None
        if launch is not None:
            known = Known(opened.study)
            numbers = [worker + number for number in range(1, config.workers + 1)]
            ended_by = launch(numbers, lambda: _tell(known, told))
        end, one = "signal", Worker(opened, objective, proposer, wait=leads, told=told)
        if ended_by is None:  # nothing is left to do where the workers did it
            end = one.work(config.trials, _left(config, seconds, launch is not None, time.monotonic() - begun))
        rows = results_of(opened.study, space, config.objectives)
    told_of = masked(url), notices, leads
    return Searched(rows, list(config.objectives), objective.directions, end, ended_by or one.signal, *told_of)


def _opened(config: SearchConfig, url: str, objective: Objective, mode: Mode) -> Opened:
    """The study of a configuration in its storage."""
    return open_study(
        url,
        config.name,
        objective.directions,
        facts_of(space_document(config.space), config.objectives, **_facts(config)),
        Dead(objective),
        mode,
        heartbeat_s=config.heartbeat_s,
        grace_s=config.grace_s,
    )


def _tell(known: Known, told: Callable[[Known], None] | None) -> None:
    """Show how far the workers are; a server that is away meanwhile is theirs to wait for."""
    try:
        known.refresh()
    except Exception as error:
        if not passes(error):
            raise
    if told is not None:
        told(known)


def _left(config: SearchConfig, seconds: float | None, launched: bool, passed: float) -> float | None:
    """Seconds that this process may work itself: 0 where the workers are jobs, to which all that is left belongs."""
    if launched and config.launcher == "slurm":
        return 0.0
    return None if seconds is None else max(seconds - passed, 0.0)


def make_accuracy(config: SearchConfig) -> Accuracy:
    """The estimator of a configuration, with the images that it looks at."""
    import torch

    from nas.accuracy import estimator
    from nas.accuracy.base import Setting

    kind = estimator(config.accuracy)
    template = load_named_space(config.space).template
    side = max(template.input)
    if config.data is None:
        setting = Setting.noise(side, template.channels, template.classes, config.images, config.seed)
    else:
        from nas.training.data import open_data

        data = open_data(config.data, side, template.channels, config.seed, config.data_root)
        chosen = torch.randperm(data.length("train"), generator=torch.Generator().manual_seed(config.seed))
        images, labels = data.read("train", chosen[: config.images].numpy())
        setting = Setting(images, labels, config.seed)
    cache = None if config.run is None else f"{config.run}/evaluations"
    return kind(replace(setting, run=config.run, steps=config.steps, cache=cache))


def check_budget(objective: Objective) -> None:
    """InputError for a limit that no network keeps, with the smallest that there is."""
    costs = {"macs": "macs", "params": "params"}
    for name, limit in objective.budget.limits().items():
        figure = partial(_figure, objective, name)
        found: Extremes = extremes(objective.space, costs.get(name, figure))
        smallest = figure(found.smallest)
        if smallest > limit:
            least = format_count(smallest) if name in costs else f"{smallest:.4g}"
            which = "the smallest" if found.exact else "the smallest found"
            rule = f"no network of the space keeps this limit: {which} has {least} {name.replace('_', ' ')}"
            raise InputError(rule, value=str(objective.budget), place="budget")


@contextmanager
def noted() -> Iterator[list[int]]:
    """Signals that ask the process to end, as they come."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(done: Callable[[], bool], received: list[int], look: Look) -> None:
    """Until it is done, or a signal was received; `look` is called every TOLD_S seconds."""
    looked = time.monotonic()
    while not received and not done():
        time.sleep(LOOK_S)
        if time.monotonic() - looked > TOLD_S:
            look()
            looked = time.monotonic()


def run_processes(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None, look: Look = lambda: None
) -> int | None:
    """Run worker processes to their end, pass signals on to them; the signal that came, if any.

    environment: further variables of theirs. InputError where every one of them ended with an error, which each has
    told.
    """
    started: list[subprocess.Popen[bytes]] = []
    given = {**os.environ, **(environment or {})}
    with noted() as received:
        try:
            started += [subprocess.Popen(list(one), start_new_session=True, env=given) for one in commands]
            wait(lambda: all(process.poll() is not None for process in started), received, look)
        finally:
            deadline = time.monotonic() + END_S
            for process in started:
                process.terminate()  # nothing where it has ended
            for process in started:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    if not received and all(process.returncode > 0 for process in started):
        raise InputError("every worker ended with an error", value=[process.returncode for process in started])
    return received[0] if received else None


def _figure(objective: Objective, name: str, architecture: Any) -> float:
    """A figure of a network; infinite where a table does not know it."""
    return float(objective.forecast(architecture).attributes.get(name, float("inf")))


def _isolated(config: SearchConfig, open_things: ExitStack) -> Accuracy:
    assert config.limit_s is not None
    return open_things.enter_context(Isolated(partial(make_accuracy, config), config.limit_s))


def _facts(config: SearchConfig) -> dict[str, Any]:
    """What a search that is taken up again shares with the one before."""
    facts: dict[str, Any] = {
        "budget": str(config.limits),
        "target": config.target,
        "sampler": config.sampler,
        "population": config.population,
        "seed": config.seed,
    }
    return facts | (judging_facts(config) if "accuracy" in config.objectives else {})


def judging_facts(config: SearchConfig) -> dict[str, Any]:
    """What an accuracy of the configuration's estimator depends on, beside the network and the seed."""
    from nas.accuracy import estimator

    code = Path(inspect.getfile(estimator(config.accuracy))).read_bytes()
    told = {"name": config.accuracy, "code": hashlib.sha256(code).hexdigest()[:12], "images": config.images}
    if config.run is not None:
        from nas.training.checkpoints import Checkpoints
        from nas.training.start import CHECKPOINTS

        steps = Checkpoints(Path(config.run) / CHECKPOINTS).steps
        told |= {"run": config.run, "checkpoints": steps, "steps": config.steps}
    facts: dict[str, Any] = {"accuracy": told}
    if config.data is not None:
        from nas.training.data import open_data

        template = load_named_space(config.space).template
        data = open_data(config.data, max(template.input), template.channels, config.seed, config.data_root)
        facts["data"] = {"name": config.data, "fingerprint": data.fingerprint}
    return facts


def _start(config: SearchConfig, space: Space, proposer: Proposer) -> list[str]:
    """Queue the networks that the search begins with; which of them the space does not hold."""
    networks = {name: named_network(name) for name in config.start}
    inside = [name for name, network in networks.items() if network in space]
    proposer.start_from(networks[name] for name in inside)
    return [f"start: {name} is not in the space" for name in networks if name not in inside]
