"""Take networks away: a folder with weights, card and checksums, in every form that is asked for, each checked.

python -m nas.export runs/RUN --pick 3                     member 3 of a search's front: timm and python
python -m nas.export runs/RUN --best "8ms" --to onnx       the best network under a budget ("acc under 8ms" as well)
python -m nas.export runs/RUN --front --to all             the whole front, in every form that is installed
python -m nas.export runs/TUNED --to timm,onnx             the network that a training run trained
python -m nas.export --arch best.yaml --weights runs/RUN   a network of a supernet that was trained
python -m nas.export --check runs/RUN/export/3             is every file as it was written?

Weights are those of the training run that a search judged by, or of --weights; without any they are random, and said
to be. A target that is named must hold the network; of `all` and the default, the others are told and left out.
"""

from __future__ import annotations

import argparse
import json
import sys

from nas.core.errors import InputError, exit_on_input_error


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m nas.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("run", nargs="?", metavar="RUN", help="the folder of a finished search, or of a training run")
    add("--pick", metavar="NUMBER|HASH", help="a member of the front by number, any network by digits of its hash")
    add("--best", metavar="BUDGET", help='the network of the best accuracy under it: "8ms", "2GFLOPs, 6M params"')
    add("--front", action="store_true", help="every member of the front")
    add("--arch", metavar="FILE", help="an architecture file or reference network, of a training run or alone")
    add("--weights", metavar="TRAINRUN", help="a run of nas.train that trained the network, or a supernet with it")
    add("--to", metavar="TARGETS", help="timm,python,torch_export,onnx,... or all (default: timm,python)")
    add("--out", metavar="DIR", help="the folder (default: export/ in the run's folder)")
    add("--seconds", type=float, default=2.0, help="to measure each target for; 0 is not at all (default: 2)")
    add("--seed", type=int, default=0, help="of random weights, where there are no others (default: 0)")
    add("--push", metavar="USER/REPO", help="send the timm folder to the Hugging Face hub (needs the network)")
    add("--check", metavar="FOLDER", help="compare an export with its checksums, and nothing else")
    add("--json", action="store_true", help="one JSON document instead of text")
    return made


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Export, or check an export."""
    options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    from nas.exporting import commands
    from nas.exporting.choosing import Picked

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout)

    if options.check is not None:
        problems = commands.check(options.check)
        print(json.dumps({"problems": problems}) if options.json else "\n".join(problems) or "sound")
        return 1 if problems else 0
    if options.front and options.push is not None:
        raise InputError("one network is pushed at a time, not a whole front", options.push, "--push")
    request = commands.Request(
        run=options.run,
        arch=options.arch,
        picked=Picked(options.pick, options.best, options.front),
        to=options.to,
        weights=options.weights,
        out=options.out,
        seconds=options.seconds,
        seed=options.seed,
        push=options.push,
    )
    result = commands.export(request, say)
    print(json.dumps(result, indent=1, allow_nan=False) if options.json else commands.table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
