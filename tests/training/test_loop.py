"""Training as a whole, on tiny networks: what a run leaves, and that nothing that happens to it changes its weights."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from random import Random

import psutil
import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nas.core.errors import InputError
from nas.core.runs import read_json
from nas.core.space import write_architecture
from nas.train import main
from nas.training import step as step_module
from nas.training.config import Networks, Optimization, TrainConfig
from nas.training.data.augment import Augment
from nas.training.distributed import Group
from nas.training.run import train
from nas.training.start import trained
from tests.forked import SERVER, ranks

SPACE = """
name: little
input: 16
channels: 1
classes: 10
stages:
  - embed: patch(size=4)
    dim: [16, 24]
    class_token: true
    position: learned
    blocks:
      - repeat: [1, 2]
        mixer: softmax(heads=[1, 2], head_dim=8)
        feedforward: mlp(ratio=[1, 2])
      - mixer: [depthwise(kernel=3), "softmax(heads=2, head_dim=8)"]
        reduction: [none, "evit(keep=0.5)"]
        feedforward: mlp(ratio=2)
head: class_token
"""
ALONE = Group(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    path = tmp_path_factory.mktemp("space") / "little.yaml"
    path.write_text(SPACE)
    return TrainConfig(
        space=str(path),
        size=16,
        steps=12,
        batch=16,
        save_every=3,
        evaluate_every=0,
        calibration=32,
        drop_path=0.1,
        augment=Augment(),
        optimization=Optimization(lr=1e-2, warmup=2, ema=0.9),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(trained(folder).supernet.state_dict())


def equal(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(little: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    train(little, root, "whole", [], ALONE, shown=False)
    return root / "whole"


def test_a_run_leaves_its_figures_its_log_and_a_supernet(undisturbed: Path, little: TrainConfig) -> None:
    result = read_json(undisturbed / "result.json")
    assert result["finished"] and result["step"] == 12
    for split in ("search", "test"):
        for name in ("largest", "smallest"):
            assert 0 <= result[f"{split}_accuracy_{name}"] <= 1
    lines = (undisturbed / "log.jsonl").read_text().splitlines()
    assert len(lines) == 12
    again = trained(undisturbed)
    assert again.step == 12 and again.config == little
    assert again.supernet.extract(again.space.sample(Random(0)))(torch.zeros(1, 1, 16, 16)).shape == (1, 10)


def test_training_learns_digits(little: TrainConfig, tmp_path: Path) -> None:
    """Chance is one in ten."""
    warm = Optimization(lr=1e-2, warmup=10)
    told = little.model_copy(
        update={"steps": 200, "batch": 32, "save_every": 1000, "drop_path": 0.0, "optimization": warm}
    )
    result = train(told, tmp_path, "run", [], ALONE, shown=False)
    assert result["test_accuracy_largest"] > 0.25
    assert result["test_accuracy_smallest"] > 0.18


def until_killed(config: TrainConfig, root: Path, resume: bool, steps: int, seconds: float) -> None:
    """Train until so many seconds after the begin of a step; runs in a process of its own."""
    inner, calls = step_module.Step.__call__, [0]

    def counted(self, *rest):
        calls[0] += 1
        if calls[0] == steps:  # within the step, the update, or the checkpoint after it
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return inner(self, *rest)

    step_module.Step.__call__ = counted
    train(config, root, "run", [], ALONE, resume, shown=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a server that forks")
def test_killed_at_twenty_random_steps_the_weights_are_the_same_bits(little: TrainConfig, tmp_path: Path) -> None:
    long = little.model_copy(update={"steps": 120, "save_every": 5})
    train(long, tmp_path, "whole", [], ALONE, shown=False)
    random = Random(0)
    for life in range(20):
        arguments = (long, tmp_path, life > 0, random.randint(1, 9), random.uniform(0, 0.03))
        child = SERVER.Process(target=until_killed, args=arguments)
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL, "killed before the end"
    train(long, tmp_path, "run", [], ALONE, resume=True, shown=False)
    assert equal(tmp_path / "run", tmp_path / "whole")


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_sigterm_saves_and_says_143(little: TrainConfig, undisturbed: Path, tmp_path: Path, monkeypatch) -> None:
    inner = step_module.Step.__call__

    def signalled(self, number, *rest):
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, number, *rest)

    monkeypatch.setattr(step_module.Step, "__call__", signalled)
    with pytest.raises(SystemExit) as ended:
        train(little, tmp_path, "run", [], ALONE, shown=False)
    assert ended.value.code == 143
    assert trained(tmp_path / "run").step == 5, "the step that was under way is finished and saved"
    monkeypatch.undo()
    train(little, tmp_path, "run", [], ALONE, resume=True, shown=False)
    assert equal(tmp_path / "run", undisturbed)


def test_a_loss_that_is_not_finite_goes_back_and_on(little: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    inner, bad = step_module.Step.__call__, [7]

    def sometimes(self, number, *rest):
        found = inner(self, number, *rest)
        if bad and number == bad[0]:
            bad.pop()
            return found._replace(loss=float("nan"))
        return found

    monkeypatch.setattr(step_module.Step, "__call__", sometimes)
    result = train(little, tmp_path, "run", [], ALONE, shown=False)
    assert result["restores"] == 1 and result["finished"]
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "run").values())
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 12, "each step stands once"


def test_a_loss_that_is_never_finite_ends_with_the_reason(little: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    inner = step_module.Step.__call__
    monkeypatch.setattr(
        step_module.Step, "__call__", lambda self, *rest: inner(self, *rest)._replace(loss=float("inf"))
    )
    with pytest.raises(InputError, match="not finite, also after going back 3 times"):
        train(little, tmp_path, "run", [], ALONE, shown=False)
    assert trained(tmp_path / "run").step == 0


@pytest.mark.parametrize("strategy", ["single", "batch"])
def test_other_strategies_train(little: TrainConfig, tmp_path: Path, strategy: str) -> None:
    told = little.model_copy(update={"steps": 3, "networks": Networks(strategy=strategy)})
    assert train(told, tmp_path, "run", [], ALONE, shown=False)["finished"]


def test_a_time_limit_leaves_a_run_to_go_on_with(little: TrainConfig, undisturbed: Path, tmp_path: Path) -> None:
    short = little.model_copy(update={"minutes": 1e-9})
    result = train(short, tmp_path, "run", [], ALONE, shown=False)
    assert not result["finished"] and result["step"] < 12
    train(little, tmp_path, "run", [], ALONE, resume=True, shown=False)
    assert equal(tmp_path / "run", undisturbed)


def test_a_run_goes_on_only_as_it_began(little: TrainConfig, undisturbed: Path) -> None:
    other = little.model_copy(update={"batch": 32, "seed": 3})
    with pytest.raises(InputError, match=r"batch: 16 -> 32; seed: 0 -> 3"):
        train(other, undisturbed.parent, "whole", [], ALONE, resume=True, shown=False)


def test_a_network_is_fine_tuned_from_the_supernet(little: TrainConfig, undisturbed: Path, tmp_path: Path) -> None:
    giver = trained(undisturbed)
    architecture = giver.space.sample(Random(1))
    file = tmp_path / "own.yaml"
    file.write_text(write_architecture(architecture, "own"))
    told = little.model_copy(
        update={
            "arch": str(file),
            "init": str(undisturbed),
            "steps": 1,
            "networks": Networks(strategy="single"),
            "optimization": Optimization(lr=1e-12, warmup=0, weight_decay=0.0, min_lr=1e-12),
        }
    )
    train(told, tmp_path, "tuned", [], ALONE, shown=False)
    tuned = trained(tmp_path / "tuned").supernet.extract(architecture)
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(tuned(images), giver.supernet.extract(architecture)(images), atol=1e-5, rtol=0)


def started_again(folder: Path, arguments: list[str]) -> None:
    """What torchrun does with --nproc-per-node 2 --max-restarts 2, but that its processes have imported everything."""
    os.chdir(folder)
    torch.set_num_threads(1)
    place = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=2, start_method="fork")
    elastic_launch(place, main)(arguments)


def test_two_processes_with_one_killed_come_to_the_same_loss(little: TrainConfig, tmp_path: Path) -> None:
    settings = [
        f"--set={key}={value}" for key, value in (("batch", 16), ("size", 16), ("save_every", 2), ("calibration", 32))
    ]
    arguments = ["--space", little.space, "--steps", "12", *settings]
    ranks(2, tmp_path, main, [*arguments, "--name", "whole"])
    run = SERVER.Process(target=started_again, args=(tmp_path, [*arguments, "--name", "killed"]))
    run.start()
    try:
        log = tmp_path / "runs" / "killed" / "log.jsonl"
        while _lines(log) < 3 and run.is_alive():
            time.sleep(0.01)
        assert run.pid is not None
        psutil.Process(run.pid).children()[-1].kill()
        run.join(120)
        assert run.exitcode == 0
    finally:
        run.kill()
    one, two = (tmp_path / "runs" / name for name in ("whole", "killed"))
    assert equal(one, two)
    assert (one / "log.jsonl").read_text().count('"loss"') == (two / "log.jsonl").read_text().count('"loss"') == 12
