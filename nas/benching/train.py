"""Train: a sandwich step of several networks against the stand-alone steps of the same networks (paired).

A step is forward, backward and update. Ours shares one bank and one update; stand-alone, each network has its own
optimiser. Losses are the same on both sides: the labels' cross-entropy, no in-place distillation. With `--autoformer`,
a folder with AutoFormer's published code, that supernet trains the same networks in turn with ours.
"""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

HELP = "a sandwich step against the stand-alone steps of its networks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="tiny", help="space of the networks (default: tiny, AutoFormer's)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default: 8)")
    parser.add_argument("--networks", type=int, default=4, help="networks a step, two of them random (default: 4)")
    parser.add_argument("--pairs", type=int, default=12, help="timed pairs of steps (default: 12)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--autoformer", metavar="DIR", help="AutoFormer's published code (of microsoft/Cream), to time as well"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The ratio of their times, and what they are."""
    import torch
    from timm.optim._optim_factory import create_optimizer_v2

    from nas.benching._autoformer_code import their_step, their_supernet
    from nas.benching._timing import paired
    from nas.core.errors import InputError
    from nas.model.costs import Costs
    from nas.model.spaces import load_named_space
    from nas.model.supernet import Supernet
    from nas.training.config import Networks, TrainConfig
    from nas.training.data.batches import Batch
    from nas.training.step import Step

    if options.networks < 3:
        raise InputError("a sandwich has the largest, the smallest and random networks", value=options.networks)
    theirs = their_supernet(options.autoformer) if options.autoformer else None
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    space = load_named_space(options.space)
    draws = sandwich_of(space, options.networks, Random(options.seed))
    drawn, largest = [draw.architecture for draw in draws], draws[0].architecture
    supernet = Supernet(space)
    step = Step(supernet, TrainConfig(networks=Networks(inplace=False)))
    images = torch.randn(options.batch, largest.channels, largest.input, largest.input)
    batch = Batch(images, torch.randint(largest.classes, (options.batch,)))
    alone = [supernet.extract(architecture).train() for architecture in drawn]
    update, *updates = (create_optimizer_v2(owner, "adamw", lr=1e-4, weight_decay=0.05) for owner in (supernet, *alone))

    def sandwich() -> None:
        step(0, batch, draws)
        update.step()
        supernet.zero_grad()

    def stand_alone() -> None:
        for network, own in zip(alone, updates, strict=True):
            torch.nn.functional.cross_entropy(network(batch.images), batch.targets).backward()
            own.step()
            own.zero_grad()

    found = paired(sandwich, stand_alone, options.pairs)
    beside = None
    if theirs:
        beside = paired(
            their_step(theirs, drawn, [_parameters(each) for each in alone], batch), sandwich, options.pairs
        )
    costs = Costs()
    return {
        "sandwich_ratio": found.ratio,
        "sandwich_interval": [found.low, found.high],
        "networks_per_step": len(draws),
        "stand_alone_ms": found.second_ms,
        "autoformer_ratio": beside and beside.ratio,
        "autoformer_interval": beside and [beside.low, beside.high],
        "space": space.name,
        "batch": options.batch,
        "gmacs": [costs.cost(architecture).macs / 1e9 for architecture in drawn],
    }


def sandwich_of(space: Any, count: int, random: Random) -> tuple[Any, ...]:
    """The largest network of a space, the smallest, and random ones."""
    from nas.model.extremes import extremes
    from nas.training.sampling import Draw

    smallest, largest, _ = extremes(space)
    others = (Draw(space.sample(random), "random") for _ in range(count - 2))
    return Draw(largest, "largest"), Draw(smallest, "smallest"), *others


def _parameters(network: Any) -> int:
    return sum(weight.numel() for weight in network.parameters())


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    low, high = result["sandwich_interval"]
    beside = ""
    if result["autoformer_ratio"]:
        from_there, to_there = result["autoformer_interval"]
        beside = f"; AutoFormer's takes {result['autoformer_ratio']:.3f} ({from_there:.3f} to {to_there:.3f}) of ours"
    each = ", ".join(f"{gmacs:.2f}" for gmacs in result["gmacs"])
    return (
        f"a sandwich step of {result['networks_per_step']} networks of {result['space']} ({each} GMACs), batch "
        f"{result['batch']}: {result['sandwich_ratio']:.3f} ({low:.3f} to {high:.3f}) of their stand-alone steps "
        f"({result['stand_alone_ms']:.0f} ms){beside}"
    )
