"""Latency on a device: `python -m nas.measure --target cpu` measures a table of operators and networks of a space.

python -m nas.measure --list                                   the tables there are
python -m nas.measure --target cpu:openvino --minutes 15       a table of this device, or more of the one there is
python -m nas.measure --target cpu --network deit_s            one network: measured, predicted, or estimated
python -m nas.measure --import times.csv --device "My board"   a table from another tool's times (docs/remote.md)
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import Any

from nas.core.errors import exit_on_input_error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m nas.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add(
        "--target", default="cpu", help="device, runtime and options: cpu, gpu, cuda:0, cpu:openvino:threads=2,batch=16"
    )
    add("--space", default="mixed", help="whose operators are measured (a shipped name or a file; default: mixed)")
    add("--minutes", type=float, default=15.0, help="time to spend on the device (default: 15)")
    add("--seed", type=int, default=0, help="of the choice of what is measured (default: 0)")
    add("--network", metavar="NAME", help="one network: a reference network or an architecture file")
    add("--list", action="store_true", help="the tables there are, with device and target")
    add("--import", dest="times", metavar="CSV", help="times that another tool measured: columns architecture, ms")
    add("--device", help="with --import: the device's name; with --bundle: none")
    add("--bundle", metavar="FOLDER", help="write networks of the space for a device without Python (docs/remote.md)")
    add("--host", help="with --bundle: copy the folder there by ssh, measure, and import the results")
    add("--allow-mismatch", default="", metavar="NAMES", help="differences to accept in a table: torch,batch,...")
    add("--json", action="store_true", help="one JSON document instead of text")
    return made


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Do what was asked for."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    command = shlex.join(["python", "-m", "nas.measure", *given])
    from nas.latency import commands

    say = (lambda line: print(line, file=sys.stderr)) if options.json else print
    allow = frozenset(name for name in options.allow_mismatch.split(",") if name)
    result: Any
    if options.list:
        result = commands.listing()
    elif options.times:
        result = commands.import_csv(options.times, options.device, options.target, command)
    elif options.bundle:
        result = commands.bundle(
            options.bundle, options.host, options.device, options.space, options.target, options.seed, command, say
        )
    elif options.network:
        result = commands.one_network(options.network, options.target, allow)
    else:
        result = commands.table(options.space, options.target, options.minutes, options.seed, command, say)
    print(json.dumps(result, indent=1, allow_nan=False) if options.json else commands.text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
