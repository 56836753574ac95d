"""Workers as jobs of Slurm, through submitit: the same workers at the same study, wherever the scheduler runs them.

submitit keeps what it hands to a job in the run's folder, which the machines share: the folder's path and a number. The
address of the study, which may hold a password, goes by the environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import InputError, input_errors_exit
from nas.core.runs import read_json, write_json
from nas.latency.isolated import one_line
from nas.searching.run import END_S, LOOK_S, Look, noted, wait

FOLDER = "jobs"
MINUTES = 24 * 60  # that a job may take, where nothing is told
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # that a job's time is nearly over, or that it has to make room


def run_jobs(
    folder: Path,
    numbers: Sequence[int],
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    look: Look = lambda: None,
    cluster: str = "slurm",
) -> int | None:
    """Run workers of a run as jobs to their end; the signal that came meanwhile, if any, which ends them.

    parameters   of submitit's AutoExecutor: timeout_min, mem_gb, cpus_per_task, gpus_per_node, slurm_partition, ...
    environment  further variables of the jobs
    look         called every few seconds
    cluster      `local` runs them as processes of this machine

    InputError where submitit or Slurm is missing, for wrong parameters, and where every worker ended with an error.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("jobs of Slurm need submitit: pip install 'nas-vit[slurm]'", place="launcher") from None
    place = folder.resolve()
    try:
        executor = submitit.AutoExecutor(place / FOLDER, cluster=cluster)
        executor.update_parameters(**{"name": folder.name, "timeout_min": MINUTES, **parameters})
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
        raise InputError(f"submitit makes no such jobs ({one_line(str(error))})", place="jobs") from None
    codes = [place / FOLDER / f"{number}.json" for number in numbers]
    for code in codes:
        code.unlink(missing_ok=True)
    with noted() as received:
        jobs: list[Any] = []
        try:
            with submitit.helpers.environment_variables(**environment):
                for number in numbers:
                    jobs.append(executor.submit(job, str(place), number))
            wait(lambda: all(one.done() for one in jobs), received, look)
        except submitit.core.utils.FailedJobError as error:
            raise InputError(f"Slurm takes no job ({one_line(str(error))})", place="launcher") from None
        finally:
            for one in jobs:
                if not one.done():
                    one.cancel(check=False)
            deadline = time.monotonic() + END_S
            while time.monotonic() < deadline and not all(one.done() for one in jobs):
                time.sleep(LOOK_S)
    if not received and all(code.exists() and read_json(code) != 0 for code in codes):
        raise InputError("every worker ended with an error; their logs are here", place=str(place / FOLDER))
    return received[0] if received else None


def job(folder: str, number: int) -> int:
    """One worker in a job of its own. A warning that the job is to end gives its network back to the queue."""
    from nas.searching.commands import join

    for warning in WARNINGS:
        signal.signal(warning, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code = 1
    try:
        with input_errors_exit():
            code = join(Path(folder), number)
    except SystemExit as end:  # submitit tells a job from one that is lost by what it returns
        code = int(end.code or 0)
    finally:
        write_json(Path(folder) / FOLDER / f"{number}.json", code)
    return code
