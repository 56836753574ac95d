"""Inherited: a ground truth of a trained supernet: each network of its space (or some) with the weights it inherits.

What samplers are compared on (`nas.bench search`) where it knows every network. Its figures say how good networks are
with inherited weights, on the search split, and no more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "write the ground truth of a trained supernet: its networks with inherited weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="folder of a run of nas.train")
    parser.add_argument("--space", required=True, help="the shipped space that the run was trained on")
    parser.add_argument("--limit", type=int, help="random networks (default: every network of the space)")
    parser.add_argument("--name", help="of the truth (default: the space's)")
    parser.add_argument("--folder", default="search_spaces/truth", help="where to write (default: search_spaces/truth)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The truth's name, its size, and the range of its figures."""
    from nas.accuracy.truth import write_truth
    from nas.core.progress import Progress
    from nas.model.spaces import load_named_space
    from nas.training.evaluating import Evaluator
    from nas.training.start import open_for, trained

    space, giver = load_named_space(options.space), trained(options.run)
    data = open_for(giver.config)
    evaluator = Evaluator(giver.supernet, data, "search", calibration=giver.config.calibration)
    networks = chosen(space, options.limit)
    rows = []
    with Progress(len(networks), "network", "networks") as progress:
        for done, architecture in enumerate(networks, start=1):
            found = evaluator.of(architecture)
            rows.append((architecture, [100 * found.accuracy]))
            progress.update(done, 1, accuracy=found.accuracy)
    images = data.length("search")
    about = f"{data.name}, weights inherited from a supernet after {giver.step} steps, on {images} images"
    header = {
        "about": f"{len(rows)} networks of {space.name} with inherited weights on {data.name}",
        "source": "this project: python -m nas.train, then python -m nas.bench inherited",
        "licence": "Apache-2.0",
        "space": options.space,
        "columns": {"inherited": {"about": about, "kind": "inherited"}},
    }
    name = options.name or space.name
    write_truth(Path(options.folder), name, header, rows)
    values = [figures[0] for _, figures in rows]
    return {"truth": name, "networks": len(rows), "lowest": min(values), "highest": max(values), "images": images}


def chosen(space: Any, limit: int | None) -> list[Any]:
    """Every network of the space once, or so many random ones."""
    from random import Random

    found: dict[str, Any] = {}
    if limit is None:
        for architecture in space.every():
            found.setdefault(architecture.digest, architecture)
        return list(found.values())
    random = Random(0)
    while len(found) < min(limit, space.size):
        architecture = space.sample(random)
        found.setdefault(architecture.digest, architecture)
    return list(found.values())


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    return (
        f"{result['truth']}: {result['networks']} networks, {result['lowest']:.1f} to {result['highest']:.1f} % of "
        f"{result['images']} images"
    )
