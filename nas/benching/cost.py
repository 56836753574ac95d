"""Cost formulas: architectures a second against counters of real passes, and errors against the meta-device count."""

from __future__ import annotations

import argparse
import time
from typing import Any

HELP = "cost formulas: speed against FlopCounterMode and fvcore, and errors"
BLOCKS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="mixed", help="the space whose 12-block networks are timed (default: mixed)")
    parser.add_argument("--timed", type=int, default=4000, metavar="N", help="of them, at most (default: 4000)")
    parser.add_argument("--check", type=int, default=100, metavar="N", help="networks of each space (default: 100)")
    parser.add_argument("--only", metavar="SPACES", help="spaces to check, joined by commas (default: all)")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Rates on one core, and mismatches."""
    from random import Random

    import torch

    from nas.model.costs import Costs
    from nas.model.spaces import load_named_space, space_names

    torch.set_num_threads(1)
    timed = _twelve_blocks(load_named_space(options.space), Random(options.seed), options.timed)
    costs = Costs()
    cold = _rate(costs.cost, timed)
    warm = max(_rate(costs.cost, timed) for _ in range(3))
    few = timed[:10]
    checked, wrong = 0, []
    for name in options.only.split(",") if options.only else space_names():
        space, random = load_named_space(name), Random(options.seed)
        for _ in range(options.check):
            architecture = space.sample(random)
            checked += 1
            difference = _difference(costs, architecture)
            if difference:
                wrong.append({"space": name, "network": architecture.to_dict(), **difference})
    counter, fvcore, error = _counters(few)
    return {
        "space": options.space,
        "blocks": BLOCKS,
        "networks_timed": len(timed),
        "architectures_per_second": warm,
        "architectures_per_second_first_pass": cold,
        "counter_per_second": counter,
        "fvcore_per_second": fvcore,
        "fvcore_worst_error": error,
        "checked": checked,
        "mismatches": len(wrong),
        "wrong": wrong[:5],
    }


def _twelve_blocks(space: Any, random: Any, count: int) -> list[Any]:
    """Random networks of the space with twelve blocks, each another."""
    from nas.core.errors import InputError

    found: dict[str, Any] = {}
    for _ in range(100 * count):
        architecture = space.sample(random)
        if len(architecture.blocks) == BLOCKS:
            found[architecture.digest] = architecture
        if len(found) == count:
            break
    if not found:
        raise InputError(f"the space has no network of {BLOCKS} blocks to time", value=space.name)
    return list(found.values())


def _rate(cost: Any, architectures: list[Any]) -> float:
    start = time.perf_counter()
    for architecture in architectures:
        cost(architecture)
    return len(architectures) / (time.perf_counter() - start)


def _difference(costs: Any, architecture: Any) -> dict[str, int]:
    """What formula and count disagree on, empty if nothing."""
    from nas.model.counting import count
    from nas.model.network import skeleton

    cost = costs.cost(architecture)
    counted = count(skeleton(architecture), (architecture.channels, architecture.input, architecture.input))
    pairs = {"macs": (cost.macs, counted.macs), "params": (cost.params, counted.params)}
    return {name: formula - real for name, (formula, real) in pairs.items() if formula != real}


def _counters(architectures: list[Any]) -> tuple[float, float, float]:
    """Networks a second of FlopCounterMode (meta) and of fvcore (with the handle that it lacks), and fvcore's error."""
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis

    from nas.model.costs import Costs
    from nas.model.counting import count
    from nas.model.network import Network, skeleton

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    start = time.perf_counter()
    for architecture in architectures:
        count(skeleton(architecture), (architecture.channels, architecture.input, architecture.input))
    counter = len(architectures) / (time.perf_counter() - start)
    seconds, worst = 0.0, 0.0
    for architecture in architectures:
        start = time.perf_counter()
        network = Network(architecture, init=False).eval()
        image = torch.zeros(1, architecture.channels, architecture.input, architecture.input)
        analysis = FlopCountAnalysis(network, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_handle)
        with torch.no_grad():
            total = analysis.total()
        seconds += time.perf_counter() - start
        worst = max(worst, abs(total / Costs().cost(architecture).macs - 1))
    return counter, len(architectures) / seconds, worst


def _attention_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-accumulates of fused attention: the handle that fvcore lacks."""
    from math import prod

    q, k, v = (value.type().sizes() for value in inputs[:3])
    return prod(q[:-2]) * q[-2] * k[-2] * (q[-1] + v[-1])


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    timed = f"{result['networks_timed']} random {result['blocks']}-block networks of {result['space']}"
    first = f"first pass {result['architectures_per_second_first_pass']:,.0f}"
    return "\n".join(
        [
            f"formulas          {result['architectures_per_second']:12,.0f} networks/s, one core, {timed} ({first})",
            f"FlopCounterMode   {result['counter_per_second']:12,.1f} networks/s (meta device)",
            f"fvcore            {result['fvcore_per_second']:12,.1f} networks/s (with a handle for fused attention; "
            f"worst error {100 * result['fvcore_worst_error']:.2f} %)",
            f"checked           {result['checked']} random networks: {result['mismatches']} differ from the count",
        ]
    )
