"""Report: what searches found, as a page, pictures for papers, and tables: `python -m nas.report runs/RUN`.

python -m nas.report runs/RUN                               report.html and the rest, in runs/RUN/report
python -m nas.report runs/RUN --format png,svg,pdf          pictures in several formats
python -m nas.report runs/ONE runs/TWO --out compared       several searches in one report
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nas.core.errors import InputError, exit_on_input_error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m nas.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("runs", nargs="+", metavar="RUN", help="the folder of a finished search")
    add("--out", metavar="DIR", help="where the report is written (default: report/ in the run's folder)")
    add("--format", default="png", metavar="FORMATS", help="of pictures: png, svg, pdf or several (default: png)")
    add("--json", action="store_true", help="print a JSON object of the files by name")
    return made


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Write the report, and say which files it has."""
    options = parser().parse_args(arguments)
    if len(options.runs) > 1 and options.out is None:
        raise InputError("a report of several runs is written to a folder of its own", place="--out")
    from nas.reporting.finished import TRIALS, open_finished
    from nas.reporting.written import FOLDER, write_report

    for run in map(Path, options.runs):
        if (run / "run.json").is_file() and not (run / TRIALS).exists():
            raise InputError("no finished search: the run has no networks to show", place=str(run))
    runs = [open_finished(run) for run in options.runs]
    formats = [name.strip().lower() for name in options.format.split(",") if name.strip()]
    found = write_report(runs, options.out or runs[0].path / FOLDER, formats)
    if options.json:
        print(json.dumps({name: str(path) for name, path in found.items()}, indent=1))
    else:
        print("\n".join(map(str, found.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
