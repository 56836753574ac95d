"""Supernet: a bound slice against the stand-alone network (paired, one thread), bind time, and bit-equality.

The slice is a 12-block network of width 192 out of a supernet of 14 blocks and width 256. `train` is bind, forward and
backward, gradients adding up in memory on both sides, as they do when several networks make one step. `step` also puts
gradients to zero first, where the stand-alone network has the advantage that torch hands a first gradient over without
adding it to anything.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

HELP = "bound slice against the stand-alone network: time, bind time, bit-equality"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="mixed", help="the space of the bit-equality check (default: mixed)")
    parser.add_argument("--check", type=int, default=200, metavar="N", help="networks to check (default: 200)")
    parser.add_argument("--pairs", type=int, default=40, help="timed pairs at batch 1, a quarter else (default: 40)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="images a pass (default: 1 16)")
    parser.add_argument("--seed", type=int, default=0)


def space_document() -> dict[str, Any]:
    """A 14-block, 256-wide plain space with the 12-block, 192-wide network in it."""
    block = {"mixer": "softmax(heads=[3, 4], head_dim=64)", "feedforward": "mlp(ratio=[3.5, 4])"}
    stage = {"embed": "patch(size=16)", "dim": [192, 256], "class_token": True, "position": "learned"}
    return {"name": "bench", "stages": [{**stage, "blocks": [{**block, "repeat": [12, 14]}]}], "head": "class_token"}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios of time, bind time, and the number of networks whose logits are bit-equal after extraction."""
    import torch

    from nas.benching._timing import paired
    from nas.core.space import Space
    from nas.latency.clock import wall
    from nas.model.spaces import load_named_space, shared_rules
    from nas.model.supernet import Supernet

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    space = Space.parse(space_document(), shared_rules())
    supernet = Supernet(space)
    wanted = {**space_document(), "name": "small"}
    wanted["stages"] = [{**wanted["stages"][0], "dim": 192, "blocks": [_small_block()]}]
    small = Space.parse(wanted, shared_rules()).only()
    own = supernet.extract(small)
    result: dict[str, Any] = {"batches": options.batches}
    for batch in options.batches:
        pairs = options.pairs if batch == 1 else max(6, options.pairs // 4)
        image = torch.randn(batch, 3, 224, 224)
        with torch.inference_mode():
            forward = paired(lambda x=image: supernet.bind(small)(x), lambda x=image: own(x), pairs)  # type: ignore[misc]
        passes = [
            paired(
                lambda x=image, z=zero: _train(supernet, lambda: supernet.bind(small, train=True), x, z),  # type: ignore[misc]
                lambda x=image, z=zero: _train(own, own.train, x, z),  # type: ignore[misc]
                pairs,
            )
            for zero in (False, True)
        ]
        own.eval()
        for name, ratio in zip(("forward", "train", "step"), (forward, *passes), strict=True):
            result[f"{name}_ratio_b{batch}"] = ratio.ratio
            result[f"{name}_interval_b{batch}"] = [ratio.low, ratio.high]
            result[f"{name}_alone_ms_b{batch}"] = ratio.second_ms
    bound = supernet.prepare(small)
    supernet.attach(bound)
    for name, call, times in (
        ("bind_ms", lambda: supernet.attach(bound), 200),
        ("bind_known_ms", lambda: supernet.bind(small), 200),
        ("bind_train_ms", lambda: supernet.bind(small, train=True), 200),
        ("skeleton_ms", lambda: supernet.prepare(small), 20),
    ):
        result[name] = 1e3 * statistics.median(wall(call) for _ in range(times))
    return {**result, **_equality(load_named_space(options.space), options.check, options.seed)}


def _small_block() -> dict[str, Any]:
    return {"mixer": "softmax(heads=3, head_dim=64)", "feedforward": "mlp(ratio=4)", "repeat": 12}


def _train(owner: Any, network: Any, image: Any, zero: bool) -> None:
    """One pass of a training loop."""
    if zero:
        owner.zero_grad()
    network()(image).square().mean().backward()


def _equality(space: Any, number: int, seed: int) -> dict[str, Any]:
    """Random networks of the space: logits of the bound slice against the extracted network's."""
    from random import Random

    import torch

    from nas.model.supernet import Supernet

    supernet, random, equal = Supernet(space), Random(seed), 0
    for _ in range(number):
        architecture = space.sample(random)
        image = torch.randn(2, architecture.channels, architecture.input, architecture.input)
        with torch.inference_mode():
            equal += torch.equal(supernet.bind(architecture)(image), supernet.extract(architecture)(image))
    parameters = sum(p.numel() for p in supernet.parameters())
    return {"space": space.name, "bank_parameters": parameters, "checked": number, "bit_equal": equal}


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    lines = []
    for name in ("forward", "train", "step"):
        for batch in result["batches"]:
            low, high = result[f"{name}_interval_b{batch}"]
            alone = result[f"{name}_alone_ms_b{batch}"]
            ratio = result[f"{name}_ratio_b{batch}"]
            interval = f"{low:.3f} to {high:.3f}"
            lines.append(f"{name:8} batch {batch:2}   {ratio:.3f} of stand-alone ({interval}; {alone:.0f} ms)")
    lines.append(
        f"bind      {result['bind_ms']:.3f} ms (known network {result['bind_known_ms']:.3f}, for training "
        f"{result['bind_train_ms']:.3f}, first skeleton of a network {result['skeleton_ms']:.1f})"
    )
    share = f"{result['bit_equal']} of {result['checked']}"
    lines.append(f"extracted {share} random networks of {result['space']} bit-equal")
    return "\n".join(lines)
