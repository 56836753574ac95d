"""Export: random networks of a space and the reference networks, written, loaded and run in every target.

A network has fresh weights of the usual initialisation, with norms, scales, biases and statistics moved away from 0 and
1 (one that came out swapped or left out would not show otherwise). `max_diff` is the largest absolute difference of the
file's outputs from the network's, over the largest output, so that it does not matter how large the logits of random
weights are; `scale` is their standard deviation. A target agrees where that is within its own tolerance (1e-4 in
float32). Each network runs in a process of its own. With --kept, rows are kept in a file as they come, and those that
it has are not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

HELP = "random and reference networks written and run in every target of export: agreement, refusals, time"
BATCH = 2
LIMIT_S = 900.0  # of one target for one network
LOADED = ["torch._dynamo", "executorch.exir"]  # once for all processes, where it is installed: nine seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", type=int, default=50, metavar="N", help="networks of the space (default: 50)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first of them (default: 0)")
    parser.add_argument("--space", default="mixed", help="name or file (default: mixed)")
    parser.add_argument("--references", action="store_true", help="every reference network as well")
    parser.add_argument("--only", metavar="NAMES", help="these reference networks, joined by commas")
    parser.add_argument("--targets", metavar="NAMES", help="joined by commas (default: all that are installed)")
    parser.add_argument("--kept", metavar="FILE", help="rows made before, and to be kept")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row a network and target."""
    from nas.core.runs import read_json, write_json

    names, cases = chosen_targets(options.targets), chosen_cases(options)
    rows = read_json(options.kept) if options.kept and Path(options.kept).exists() else []
    known = {(row["network"], row["target"]) for row in rows}
    for case in cases:
        for row in isolated(case, [name for name in names if (case["name"], name) not in known]):
            rows.append(row)
            if options.kept:
                write_json(options.kept, rows)
    wanted = {(case["name"], name) for case in cases for name in names}
    rows = [row for row in rows if (row["network"], row["target"]) in wanted]
    return {"batch": BATCH, "seed": options.seed, "tolerances": tolerances(names), "rows": rows}


def chosen_targets(wanted: str | None) -> list[str]:
    """The targets that were asked for, which must be installed, else all that are."""
    from nas.core.errors import InputError
    from nas.exporting.targets import missing, targets

    if wanted is None:
        return [name for name in targets() if not missing(name)]
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if lacking := missing(name):
            raise InputError("packages of this target are not installed", value=", ".join(lacking), place=name)
    return names


def chosen_cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Names of networks, with what makes them."""
    from nas.model.reference import load_reference, reference_names
    from nas.model.spaces import load_named_space

    space = load_named_space(options.space).name
    numbers = range(options.first, options.first + options.networks)
    cases = [
        {"name": f"{space}-{options.seed}-{number}", "space": options.space, "number": number, "seed": options.seed}
        for number in numbers
    ]
    names = [name.strip() for name in options.only.split(",")] if options.only else []
    for name in dict.fromkeys([*names, *(reference_names() if options.references else ())]):
        load_reference(name)
        cases.append({"name": name, "reference": name, "seed": options.seed})
    return cases


def tolerances(names: list[str]) -> dict[str, float]:
    """Of each target."""
    from nas.exporting.targets import target

    return {name: target(name).TOLERANCE for name in names}


def isolated(case: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """The rows of a network; a target that ends the process or takes too long costs its own row and no other."""
    from nas.core.processes import served

    context = served(LOADED)
    rows: list[dict[str, Any]] = []
    while len(rows) < len(names):
        line, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rows, args=(case, names[len(rows) :], theirs), daemon=True)
        process.start()
        theirs.close()
        failed = ""
        try:
            while len(rows) < len(names) and not failed:
                if line.poll(LIMIT_S):
                    rows.append(json.loads(line.recv_bytes()))
                else:
                    failed = f"no result within {LIMIT_S:g} s"
        except EOFError:
            process.join()
            failed = f"its process ended with code {process.exitcode}"
        process.kill()
        process.join()
        line.close()
        if failed:
            rows.append(_row(case["name"], names[len(rows)], failed=failed))
    return rows


def _rows(case: dict[str, Any], names: list[str], line: Any) -> None:
    """The process of a network."""
    import torch

    torch.set_num_threads(1)
    subject = subject_of(case)
    for name in names:
        line.send_bytes(json.dumps(measured(subject, name), allow_nan=False).encode())


def subject_of(case: dict[str, Any]) -> Any:
    """The network of a case, the same every time."""
    from random import Random

    import torch

    from nas.exporting.subject import Subject
    from nas.model.network import Network
    from nas.model.reference import load_reference
    from nas.model.spaces import load_named_space

    if "reference" in case:
        architecture = load_reference(case["reference"]).architecture
    else:
        architecture = load_named_space(case["space"]).sample(Random(f"{case['seed']} {case['number']}"))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(case["seed"])
        network = Network(architecture).eval()
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return Subject(case["name"], architecture, network, trained=False)


def measured(subject: Any, name: str) -> dict[str, Any]:
    """One network written, loaded and run in one target."""
    import tempfile

    import torch

    from nas.exporting.targets import Refused, target
    from nas.latency.isolated import one_line

    images, start = subject.steady(BATCH, seed=1), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            target(name).write(subject, Path(folder))
            found = target(name).load(Path(folder), images)()
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        except Refused as reason:
            return _row(subject.name, name, refused=str(reason), seconds=time.perf_counter() - start)
        except Exception as error:  # whatever it is, it belongs in the report
            failed = one_line(f"{type(error).__name__}: {error}")
            return _row(subject.name, name, failed=failed, seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        wanted = subject.network(images)
    if not bool(found.isfinite().all()):
        return _row(subject.name, name, failed="outputs that are not finite", seconds=seconds)
    off, largest = (found - wanted).abs().max().item(), wanted.abs().max().item()
    scale = wanted.std().item()
    return _row(subject.name, name, max_diff=off / largest, scale=scale, megabytes=size / 1e6, seconds=seconds)


def _row(network: str, target: str, **found: Any) -> dict[str, Any]:
    """All rows have the same keys, null where there is no figure."""
    keys = ("max_diff", "scale", "megabytes", "seconds", "refused", "failed")
    return {"network": network, "target": target, **{key: found.get(key) for key in keys}}


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    import statistics

    from nas.reporting.text import text_table

    lines, cells = [], []
    for name, tolerance in result["tolerances"].items():
        rows = [row for row in result["rows"] if row["target"] == name]
        diffs = [row["max_diff"] for row in rows if row["max_diff"] is not None]
        seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
        cells.append(
            [
                name,
                len(rows),
                sum(diff <= tolerance for diff in diffs),
                sum(row["refused"] is not None for row in rows),
                f"{max(diffs):.1e}" if diffs else "-",
                f"{tolerance:g}",
                f"{statistics.median(seconds):.1f}" if seconds else "-",
            ]
        )
        for row in rows:
            if row["failed"] or row["refused"]:
                lines.append(f"{name}: {row['network']}: {row['failed'] or 'refused: ' + row['refused']}")
            elif not row["max_diff"] <= tolerance:
                lines.append(f"{name}: {row['network']}: outputs differ by {row['max_diff']:.1e}")
    head = ["target", "networks", "agree", "refused", "max diff", "within", "seconds"]
    return "\n".join([text_table(head, cells), *([""] if lines else []), *lines])
