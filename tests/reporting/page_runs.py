"""Runs for tests of the page: real networks with invented figures."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from nas.model.outline import outline
from nas.model.spaces import load_named_space
from nas.reporting.finished import Finished
from tests.reporting.made_runs import finished

HOSTILE = "</script><script>document.title='hit'</script><!--<img src=x onerror=alert(1)>"


def made(space: str, count: int, seed: int = 0, **about: Any) -> Finished:
    """A search of real networks with invented figures; some are over a limit of 6 ms, some could not be judged."""
    draw, random, rows = np.random.default_rng(seed), Random(seed), []
    for trial in range(count):
        own = load_named_space(space).sample(random)
        latency = float(draw.uniform(0.5, 8))
        known = latency <= 6 and trial % 11 != 3
        figures = {"macs": int(draw.integers(1e6, 9e9)), "params": int(draw.integers(1e4, 9e6)), "memory_mb": 3.25}
        row = {"trial": trial, "digest": f"{trial:04x}{own.digest[4:]}", "architecture": own.to_dict()}
        row |= {
            "outline": outline(own),
            "origin": "sampler",
            "feasible": known,
            **figures,
            "latency_ms": latency,
        }
        row |= {"latency_ms_sigma": latency / 20, "accuracy": None, "excess": {"latency_ms": latency / 6 - 1}}
        row |= {"reason": None if known or latency > 6 else "out of memory: 3 GB"}
        if known:
            row |= {"accuracy": 60 + 4 * np.sqrt(latency) + float(draw.normal()), "accuracy_sigma": 0.4}
        if row["reason"]:
            row["excess"] = {**row["excess"], "failed": 1.0}
        rows.append(row)
    return finished(Path("runs/it's demo"), rows, budget="6ms", **about)


def hostile() -> Finished:
    """A search of 80 networks with texts that are no good as HTML."""
    return made("digits", 80, target=HOSTILE, notices=[HOSTILE])
