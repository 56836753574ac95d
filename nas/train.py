"""Train the supernet of a space, or one network: `python -m nas.train --space digits --data digits`.

python -m nas.train --space digits                              every network of the space at once, from nothing
python -m nas.train --name RUN --resume                         go on after a kill, to the very weights without it
python -m nas.train --arch best.yaml --init runs/RUN            fine-tune one network from the supernet's weights
python -m nas.train --init timm:deit_tiny_patch16_224 --data folder:IMAGES      an elastic supernet around it
torchrun --standalone --nproc-per-node 2 -m nas.train --name RUN ...            several processes and devices
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from nas.core.errors import InputError, exit_on_input_error

RUNS = "runs"
FLAGS = ("space", "arch", "init", "data", "steps", "minutes", "device", "seed")  # also keys of the configuration


def parser() -> argparse.ArgumentParser:
    """The command line; everything else is a key of the configuration."""
    made = argparse.ArgumentParser(
        prog="python -m nas.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--space", help="a shipped space or a file (default: digits)")
    add("--arch", metavar="FILE", help="train this architecture (or reference network) alone")
    add("--init", metavar="RUN", help="start from a run's weights, or from timm:<model>")
    add("--data", help="digits, clutter, or a data set of timm's such as folder:PATH (default: digits)")
    add("--steps", type=int, help="updates (default: 1200)")
    add("--minutes", type=float, help="stop after so long, with a checkpoint to go on from")
    add("--device", help="cpu or cuda (default: cpu)")
    add("--seed", type=int, help="of weights, order, augmentation and architectures (default: 0)")
    add("--name", help="of the folder in runs/ (default: the time)")
    add("--resume", action="store_true", help="go on with the run of this name")
    add("--config", metavar="FILE", help="a YAML file of settings")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, such as optimization.lr=1e-3")
    return made


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    """Train, and say what came out."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    from nas.core.config import resolve
    from nas.core.runs import open_run
    from nas.training.config import TrainConfig
    from nas.training.distributed import Group
    from nas.training.run import train

    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    there = options.name is not None and (Path(RUNS) / options.name / "run.json").is_file()
    resume = options.resume or (restarted and there)
    if resume and options.name is None:
        raise InputError("to go on with a run takes its --name")
    flags = {key: getattr(options, key) for key in FLAGS}
    before = open_run(Path(RUNS) / options.name).config if resume else None
    config = resolve(TrainConfig, options.config, options.set, flags, before)
    command = ["python", "-m", "nas.train", *given]
    with Group.from_environment(config.device) as group:
        say = partial(print, file=sys.stderr)
        result = train(config, RUNS, options.name, command, group, resume, say)
        if group.rank == 0:
            for name, value in result.items():
                print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
