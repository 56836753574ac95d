"""Benchmarks: `python -m nas.bench <benchmark> [--json]`. Each is a file in nas/benching."""

from __future__ import annotations

import argparse
import json
import sys

from nas.benching import benchmarks
from nas.core.errors import exit_on_input_error


def parser() -> argparse.ArgumentParser:
    """The command line, generated from the benchmarks found."""
    top = argparse.ArgumentParser(prog="python -m nas.bench", description="Measure what this project claims.")
    commands = top.add_subparsers(dest="benchmark", required=True, metavar="benchmark")
    for name, module in benchmarks().items():
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        command.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
        module.add_arguments(command)
    return top


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and print its result."""
    options = parser().parse_args(arguments)
    module = benchmarks()[options.benchmark]
    result = module.run(options)
    if options.json:
        from nas.benching._provenance import provenance

        print(json.dumps({**result, "provenance": provenance(arguments)}, indent=1, allow_nan=False))
    else:
        print(module.table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
