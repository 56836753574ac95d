"""Ranking: does the accuracy with inherited weights order networks as training each of them alone does?

A supernet is trained once; random networks are evaluated with its weights and, after training from nothing with the
same recipe, with their own, on the same images of the search split. The supernet and the networks are trained at once,
as many as there are processes. Everything is kept in a folder: called again with the same options, the benchmark goes
on where it was ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "inherited-weight accuracy against stand-alone training: Kendall's tau"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="clutter", help="space of the networks (default: clutter)")
    parser.add_argument("--data", default="clutter", help="data set (default: clutter)")
    parser.add_argument("--networks", type=int, default=24, help="random networks to compare (default: 24)")
    parser.add_argument("--supernet-steps", type=int, default=3000, help="updates of the supernet (default: 3000)")
    parser.add_argument("--steps", type=int, default=1000, help="updates of each network alone (default: 1000)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default: 64)")
    parser.add_argument("--warmup", type=int, default=100, help="updates with a rising rate (default: 100)")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate (default: 0.002)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once, a thread each (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/ranking", help="where to keep everything (default: runs/ranking)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Kendall's tau with its interval, the accuracies, and what they cost."""
    import torch

    from nas.benching._statistics import kendall
    from nas.core.errors import InputError
    from nas.model.spaces import load_named_space
    from nas.training.evaluating import Evaluator
    from nas.training.start import open_for, trained

    if options.networks < 3:
        raise InputError("a rank correlation takes three networks or more", value=options.networks)
    folder = Path(options.folder)
    networks = _drawn(load_named_space(options.space), options.networks, options.seed)
    together, *alone = _trained(options, folder, networks)
    giver = trained(folder / "supernet")
    supernet, data = giver.supernet.to(torch.device(options.device)), open_for(giver.config)
    evaluator = Evaluator(supernet, data, "search", folder / "evaluations")
    inherited = [evaluator.of(architecture) for architecture in networks]
    values = [evaluation.accuracy for evaluation in inherited]
    own = [result["search_accuracy_largest"] for result in alone]
    tau, low, high = kendall(values, own, options.seed)
    return {
        "networks": len(networks),
        "tau": tau,
        "tau_low": low,
        "tau_high": high,
        "dataset": options.data,
        "space": options.space,
        "supernet_steps": options.supernet_steps,
        "steps": options.steps,
        "batch": options.batch,
        "supernet_seconds": together["seconds"],
        "inherited_seconds": sum(evaluation.seconds for evaluation in inherited),
        "alone_seconds": sum(result["seconds"] for result in alone),
        "rows": [
            {"inherited": one, "alone": two, "seed": options.seed, "architecture": architecture.to_dict()}
            for one, two, architecture in zip(values, own, networks, strict=True)
        ],
    }


def _drawn(space: Any, count: int, seed: int) -> list[Any]:
    """Different networks of the space."""
    from random import Random

    random = Random(seed)
    found: dict[str, Any] = {}
    while len(found) < count:
        architecture = space.sample(random)
        found.setdefault(architecture.digest, architecture)
    return list(found.values())


def _trained(options: argparse.Namespace, folder: Path, networks: list[Any]) -> list[dict[str, Any]]:
    """The results of the supernet and of each network alone, from nothing, several at once."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from nas.core.runs import read_json, write_whole
    from nas.core.space import write_architecture
    from nas.training.run import RESULT

    folder.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, tuple[str | None, int]] = {"supernet": (None, options.supernet_steps)}
    for architecture in networks:
        file = folder / f"{architecture.digest[:16]}.yaml"
        write_whole(file, write_architecture(architecture, architecture.digest[:16]))
        jobs[file.stem] = (str(file), options.steps)
    left = [name for name in jobs if not (folder / name / RESULT).is_file()]
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_train, options, folder, name, *jobs[name]) for name in left]:
            future.result()
    return [read_json(folder / name / RESULT) for name in jobs]


def _train(options: argparse.Namespace, folder: Path, name: str, arch: str | None, steps: int) -> None:
    """A run in the folder, gone on with or begun."""
    import torch

    from nas.training.config import Networks, Optimization, TrainConfig
    from nas.training.distributed import Group
    from nas.training.run import train

    torch.set_num_threads(1)
    config = TrainConfig(
        space=options.space,
        arch=arch,
        data=options.data,
        steps=steps,
        batch=options.batch,
        networks=Networks() if arch is None else Networks(strategy="single"),
        optimization=Optimization(lr=options.lr, warmup=options.warmup),
        seed=options.seed,
        device=options.device,
        evaluate_every=0,
        save_every=500,
        keep=1,
    )
    command = ["python", "-m", "nas.bench", "ranking"]
    resume = (folder / name / "run.json").is_file()
    group = Group(0, 1, 0, torch.device(options.device))
    train(config, folder, name, command, group, resume, shown=arch is None)


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    rows = [[f"{row['inherited']:.3f}", f"{row['alone']:.3f}"] for row in result["rows"]]
    minutes = [result[key] / 60 for key in ("supernet_seconds", "inherited_seconds", "alone_seconds")]
    return (
        f"{text_table(['inherited', 'alone'], rows)}\n"
        f"Kendall's tau {result['tau']:.2f} ({result['tau_low']:.2f} to {result['tau_high']:.2f}) over "
        f"{result['networks']} networks of {result['space']} on {result['dataset']}; supernet {minutes[0]:.1f} min, "
        f"evaluating {minutes[1]:.1f} min, training alone {minutes[2]:.1f} min"
    )
