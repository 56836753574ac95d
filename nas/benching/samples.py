"""Random networks of every space: whether each builds, runs, costs what the formulas say, exports and extracts.

A network is a slice of the space's supernet with fresh weights. `cost` holds multiply-accumulates, parameters and
activation against the count of the real forward on the meta device; `extracted` compares the bound slice and its clone,
bit for bit; `exported` runs the program of torch.export beside the network, within 1e-5.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache
from typing import Any

HELP = "random networks of every space: build, run, cost, torch.export, extraction"
CHECKS = ("built", "ran", "cost", "extracted", "exported")
BATCH = 2
TOLERANCE = 1e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", type=int, default=20, metavar="N", help="networks of each space (default: 20)")
    parser.add_argument("--only", metavar="SPACES", help="spaces, joined by commas (default: all)")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row a space."""
    import torch

    from nas.model.spaces import load_named_space, space_names

    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else space_names()
    return {"spaces": [measure(load_named_space(name.strip()), options.check, options.seed) for name in names]}


def measure(space: Any, number: int, seed: int) -> dict[str, Any]:
    """The row of one space: how many networks pass each check, and those that fail."""
    from random import Random

    import torch

    from nas.core.space import write_architecture
    from nas.model.supernet import Supernet

    start = time.perf_counter()
    torch.manual_seed(seed)
    supernet, random = Supernet(space), Random(seed)
    row: dict[str, Any] = {"space": space.name, "networks": number, **dict.fromkeys(CHECKS, 0), "failures": []}
    for _ in range(number):
        architecture = space.sample(random)
        faults = check(supernet, architecture)
        for name in CHECKS:
            row[name] += name not in faults
        if faults:
            row["failures"].append({"faults": faults, "network": write_architecture(architecture)})
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def check(supernet: Any, architecture: Any) -> dict[str, str]:
    """What is wrong with one network of the space, by check; empty if nothing."""
    import torch

    from nas.model.network import Network

    image = torch.randn(BATCH, architecture.channels, architecture.input, architecture.input)
    faults: dict[str, str] = {}

    def attempt(name: str, call: Callable[[], str]) -> None:
        try:
            fault = call()
        except Exception as error:  # whatever it is, it belongs in the report
            fault = f"{type(error).__name__}: {error}"
        if fault:
            faults[name] = fault

    own = cache(lambda: supernet.extract(architecture))
    logits = cache(lambda: own()(image))
    attempt("built", lambda: _built(Network(architecture)))
    with torch.inference_mode():
        attempt("ran", lambda: _ran(logits(), architecture.classes))
        attempt("extracted", lambda: _extracted(supernet.bind(architecture)(image), logits()))
    attempt("cost", lambda: _cost(architecture))
    with torch.no_grad():
        attempt("exported", lambda: _exported(own(), image, logits()))
    return faults


def _built(network: Any) -> str:
    strange = [name for name, value in network.state_dict().items() if not bool(value.isfinite().all())]
    return f"weights that are not finite: {strange}" if strange else ""


def _ran(logits: Any, classes: int) -> str:
    if tuple(logits.shape) != (BATCH, classes):
        return f"logits of shape {tuple(logits.shape)}"
    return "" if bool(logits.isfinite().all()) else "logits that are not finite"


def _extracted(bound: Any, own: Any) -> str:
    import torch

    return "" if torch.equal(bound, own) else f"slice and clone differ by {(bound - own).abs().max().item():.1e}"


def _cost(architecture: Any) -> str:
    from nas.model.costs import Costs
    from nas.model.counting import count
    from nas.model.network import skeleton

    cost = Costs().cost(architecture)
    counted = count(skeleton(architecture), (architecture.channels, architecture.input, architecture.input))
    pairs = [(name, getattr(cost, name), getattr(counted, name)) for name in ("macs", "params", "activation")]
    return "; ".join(f"{name} {ours} is counted as {real}" for name, ours, real in pairs if ours != real)


def _exported(network: Any, image: Any, expected: Any) -> str:
    from nas.model.program import exported

    found = exported(network, (image,)).module()(image)
    difference, scale = (found - expected).abs().max().item(), max(1.0, expected.abs().max().item())
    return "" if difference <= TOLERANCE * scale else f"outputs differ by {difference:.1e}"


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    rows = [
        [row["space"], row["networks"], *(row[name] for name in CHECKS), row["seconds"]] for row in result["spaces"]
    ]
    lines = [text_table(["space", "networks", *CHECKS, "seconds"], rows)]
    for row in result["spaces"]:
        for failure in row["failures"]:
            faults = [f"{name}: {fault}" for name, fault in failure["faults"].items()]
            lines += ["", f"{row['space']}: {'; '.join(faults)}", failure["network"]]
    return "\n".join(lines)
