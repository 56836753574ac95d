"""Search: the best networks of a space for a device: `python -m nas.search --target cpu --budget 2GFLOPs`.

python -m nas.search --target gpu --budget 2GFLOPs,10ms              the flagship space; no GPU is needed to estimate
python -m nas.search --space digits --set data=digits --accuracy naswot --trials 200
python -m nas.search --name RUN --resume                             go on with a search that was ended
python -m nas.search --storage postgresql://HOST/nas --name RUN      the same command on any number of machines
python -m nas.search --set run=runs/TRAINED --set 'ladder=[{accuracy: supernet}, {accuracy: short_training, keep: 4}]'
python -m nas.search --from-table runs/RUN --budget 8ms              the best network under it, of a finished search
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from nas.core.errors import InputError, exit_on_input_error

RUNS = "runs"
USUAL = {"trials": 1000, "minutes": 3.0}  # where neither is told: whichever ends first
FLAGS = {
    "time": "minutes",
    **{k: k for k in ("space", "target", "budget", "accuracy", "trials", "seed", "storage", "workers")},
}


def parser() -> argparse.ArgumentParser:
    """The command line; everything else is a key of the configuration."""
    made = argparse.ArgumentParser(
        prog="python -m nas.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--target", help="device, runtime and options, such as gpu, cpu:openvino, cpu:eager:batch=16 (default: cpu)")
    add("--budget", help='upper limits: "2GFLOPs, 6M params, 12ms, 80MB"; FLOPs are multiply-accumulates')
    add("--space", help="a shipped space or a file (default: mixed)")
    add("--accuracy", help="what estimates accuracy, a file in nas/accuracy (default: prior)")
    add("--trials", type=int, help="networks to evaluate (default: 1000, in at most 3 minutes)")
    add("--time", type=float, metavar="MINUTES", help="for the search, without measuring the front again")
    add("--seed", type=int, help="same seed, same front (default: 0)")
    add("--storage", help="a database that several machines share (default: a file in the run's folder)")
    add("--workers", type=int, help="processes on this machine (default: 1)")
    add("--resume", action="store_true", help="go on with the run of this name")
    add("--name", help="of the folder in runs/ (default: the time)")
    add("--config", metavar="FILE", help="a YAML file of settings")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as objectives=[accuracy,macs]",
    )
    add("--from-table", metavar="RUN", help="with --budget: the best network under it of a finished run")
    add("--worker", type=int, help=argparse.SUPPRESS)  # one of several processes of a run
    return made


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Search, measure the front again, and show it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    from nas.searching import commands

    if options.from_table is not None:
        if options.budget is None:
            raise InputError("the best network under what: give a budget", place="--from-table")
        print(commands.best(Path(options.from_table), options.budget))
        return 0
    if options.name is None and (options.resume or options.storage):
        raise InputError("to go on with a run, or to share one, takes its --name")
    if options.worker is not None:
        return commands.join(Path(RUNS) / options.name, options.worker)
    config = _config(options)
    command = ["python", "-m", "nas.search", *given]
    return commands.search(config, RUNS, options.name, options.resume, command, print)


def _config(options: argparse.Namespace) -> Any:
    """The run's own configuration where it goes on, under what is given now."""
    from nas.core.runs import open_run
    from nas.searching.config import load_config

    flags = {key: getattr(options, name) for name, key in FLAGS.items()}
    base: dict[str, Any] = USUAL if flags["trials"] is None and flags["minutes"] is None else {}
    if options.resume:
        base = open_run(Path(RUNS) / options.name).config
    return load_config(options.config, options.set, flags, base)


if __name__ == "__main__":
    sys.exit(main())
