"""Workers as jobs: submitit's own executor of this machine in place of Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.core.errors import InputError
from nas.core.runs import new_run
from nas.searching.config import SearchConfig, load_config
from nas.searching.run import Look, run_search
from nas.searching.slurm import run_jobs

pytest.importorskip("submitit", reason="submitit, which launches jobs, is not installed")


def begun(tmp_path: Path, **others: Any) -> tuple[SearchConfig, Path]:
    """A configuration, and the folder of its run."""
    told = {"space": "digits", "objectives": ["accuracy", "macs"], "accuracy": "depth_width", "sampler": "random"}
    config = load_config(None, [], {**told, "trials": 8, "workers": 2, **others})
    return config, new_run(tmp_path, "one", config.model_dump(mode="json"), ["test"]).path


def test_two_jobs_work_at_one_study(tmp_path: Path) -> None:
    config, folder = begun(tmp_path)
    evaluated: list[int] = []

    def launch(numbers: Sequence[int], look: Look) -> int | None:
        ended_by = run_jobs(folder, numbers, {"timeout_min": 5}, {}, look, "local")
        study = optuna.load_study(study_name=config.name, storage=f"sqlite:///{folder}/study.db")
        evaluated.append(sum(trial.state is TrialState.COMPLETE for trial in study.trials))
        return ended_by

    found = run_search(config, folder, launch=launch)
    assert evaluated[0] >= 8, "the jobs did it, and not who launched them"
    assert len({row["digest"] for row in found.rows}) == len(found.rows) >= 8 and found.end == "trials"


def test_jobs_that_cannot_be_are_one_message(tmp_path: Path) -> None:
    _, folder = begun(tmp_path)
    with pytest.raises(InputError, match=r"jobs: submitit makes no such jobs .*partitoin"):
        run_jobs(folder, [1], {"slurm_partitoin": "gpu"}, {}, cluster="local")
    with pytest.raises(InputError, match="every worker ended with an error; their logs are here"):
        (folder / "run.json").write_text("{}")
        run_jobs(folder, [1], {"timeout_min": 5}, {}, cluster="local")
