"""Reference networks: computed against published counts and, where timm has the network, timm's counts and outputs."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "published networks: counts against the papers and timm, outputs against timm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAMES", help="reference networks, joined by commas (default: all)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row a network."""
    from nas.model.reference import load_reference, reference_names

    names = options.only.split(",") if options.only else reference_names()
    return {"networks": [measure(load_reference(name.strip())) for name in names]}


def measure(reference: Any) -> dict[str, Any]:
    """The row of one network; null where there is no figure."""
    from nas.model.costs import Costs
    from nas.model.reference import figures

    cost = Costs().cost(reference.architecture)
    row = {
        "name": reference.name,
        "params": cost.params,
        "macs": cost.macs,
        "attention_macs": cost.attention,
        "timm_params": None,
        "timm_macs": None,
        "published_params_m": reference.params_m and float(reference.params_m),
        "published_gmacs": reference.gmacs and float(reference.gmacs),
        "published_top1": reference.top1,
        "parity_max_diff": None,
        "agrees": all(figure.holds for figure in figures(reference)),
        "note": "; ".join(f"{name}: {why}" for name, why in reference.off.items()),
        "paper": reference.paper,
        "source": reference.source,
    }
    if reference.timm:
        row |= against_timm(reference)
        row["agrees"] &= row["timm_params"] == cost.params and row["timm_macs"] == cost.macs
    return row


def against_timm(reference: Any) -> dict[str, Any]:
    """Counts of timm's network, and the largest difference of outputs under the same random weights."""
    import torch

    from nas.model.counting import count
    from nas.model.reference import timm_twin

    ours, theirs = timm_twin(reference)
    side = reference.architecture.input
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (ours(image) - theirs(image)).abs().max().item()
    counted = count(theirs, (3, side, side))
    return {"timm_params": counted.params, "timm_macs": counted.macs, "parity_max_diff": difference}


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    head = ["network", "params", "published", "MACs", "published", "timm params", "timm MACs", "max diff", "agrees"]
    rows = []
    for row in result["networks"]:
        difference = row["parity_max_diff"]
        rows.append(
            [
                row["name"],
                f"{row['params'] / 1e6:.3f} M",
                "-" if row["published_params_m"] is None else f"{row['published_params_m']:g} M",
                f"{row['macs'] / 1e9:.3f} G",
                "-" if row["published_gmacs"] is None else f"{row['published_gmacs']:g} G",
                "-" if row["timm_params"] is None else ("equal" if row["timm_params"] == row["params"] else "differ"),
                "-" if row["timm_macs"] is None else ("equal" if row["timm_macs"] == row["macs"] else "differ"),
                "-" if difference is None else f"{difference:.1e}",
                "yes" if row["agrees"] else "NO",
            ]
        )
    agreed = sum(row["agrees"] for row in result["networks"])
    notes = [f"{row['name']}: published figure off: {row['note']}" for row in result["networks"] if row["note"]]
    summary = f"{agreed} of {len(rows)} networks agree; MACs are multiply-accumulates"
    return "\n".join([text_table(head, rows), summary, *notes])
