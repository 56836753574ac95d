"""The loop: from a start to a trained supernet, through kills, bad losses and several processes.

Batch, architectures and noise are functions of (seed, step), and everything else is in a checkpoint: a run that was
ended anywhere goes on from its newest checkpoint to the very weights it would have had (bit-equal on a CPU).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from nas.core.errors import InputError
from nas.core.progress import Progress
from nas.model.extremes import extremes
from nas.training.checkpoints import Checkpoints, Saved
from nas.training.config import TrainConfig
from nas.training.data.base import Data
from nas.training.data.batches import Batch, Batches
from nas.training.data.randomness import derived
from nas.training.data.testing import open_test
from nas.training.distill import Teacher
from nas.training.distributed import Group
from nas.training.evaluating import evaluate, has_batch_norm, recalibrate
from nas.training.faults import NanGuard, Stop, Verdict, stopping
from nas.training.sampling import Draw, Draws
from nas.training.start import CHECKPOINTS, Start
from nas.training.state import into_module, into_optimizer, of_module, of_optimizer
from nas.training.step import Step
from nas.training.trackers import Tracker, open_trackers


class Training:
    """One run on one process of a group. `run` trains to the end, or leaves a checkpoint to go on from."""

    def __init__(self, config: TrainConfig, start: Start, data: Data, folder: Path, group: Group):
        from timm.optim._optim_factory import create_optimizer_v2
        from timm.scheduler.scheduler_factory import create_scheduler_v2
        from timm.utils.model_ema import ModelEmaV3

        self.config, self.space, self.data, self.folder, self.group = config, start.space, data, folder, group
        self.supernet = start.supernet.to(group.device)
        group.broadcast(list(self.supernet.state_dict().values()))
        teacher = Teacher.of(config.distillation, data, self.supernet) if config.distillation is not None else None
        self.step = Step(self.supernet, config, teacher)
        told = config.optimization
        trained = torch.nn.ModuleList([self.supernet, *([] if teacher is None else [teacher])])
        self.parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        if teacher is not None and told.layer_decay is not None:
            raise InputError("layers' rates decay without a teacher only", value=told.layer_decay, place="layer_decay")
        self.optimizer = create_optimizer_v2(
            trained if told.layer_decay is None else self.supernet,
            opt=told.optimizer,
            lr=told.lr,
            weight_decay=told.weight_decay,
            momentum=told.momentum,
            layer_decay=told.layer_decay,
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            told.schedule,
            num_epochs=config.steps,
            warmup_epochs=min(told.warmup, config.steps // 2),
            min_lr=told.min_lr,
            warmup_lr=min(told.min_lr, told.lr),
            step_on_epochs=False,
            updates_per_epoch=1,
        )
        self.ema = ModelEmaV3(self.supernet, decay=told.ema) if told.ema else None
        augment = data.usual if config.augment is None else config.augment
        self.batches = Batches(data, config.batch, config.seed, augment, group.rank, group.world, config.workers)
        least = config.networks.random if config.networks.strategy == "batch" else 1
        if config.batch // group.world // told.accumulate < least:
            raise InputError("every network has an image of its own in each part of a batch", value=config.batch)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, config.keep, group.rank)
        self.guard = NanGuard(config.bad_steps, skips=0)
        self.done = 0  # steps
        self.saved = -1  # the step of the newest checkpoint

    def run(self, resume: bool, shown: bool = True, test: bool = True) -> dict[str, Any]:
        """Train; the figures at the end. SystemExit 143 or 130 after a signal, with a checkpoint."""
        try:
            return self._run(resume, shown, test)
        finally:
            self.checkpoints.close()

    def _run(self, resume: bool, shown: bool, test: bool) -> dict[str, Any]:
        fresh: int | None = None
        if resume:
            saved = self._newest()
            if saved is None and self.checkpoints.problems:
                rule = "no checkpoint of the run is sound: look at them, or begin another run"
                raise InputError(rule, value=self.checkpoints.problems, place=str(self.checkpoints.folder))
            fresh = 0 if saved is None else saved.step
            if saved is not None:
                self._restore(saved)
        if self.saved < 0:
            self._save()
        began = time.monotonic()
        with ExitStack() as stack:
            stop = stack.enter_context(stopping())
            progress = stack.enter_context(
                Progress(self.config.steps, start=self.done, shown=shown and self.group.rank == 0)
            )
            for problem in self.checkpoints.problems:
                progress.say(f"passed over a checkpoint: {problem}")
            while not self._finished(began):
                tracker = self._trackers(fresh)
                try:
                    self._stretch(began, stop, tracker, progress)
                finally:
                    tracker.close()
                fresh = self.done
            self._save()
            return self._figures(progress, time.monotonic() - began, test)

    def _finished(self, began: float) -> bool:
        minutes = self.config.minutes
        late = minutes is not None and time.monotonic() - began >= 60 * minutes
        return self.done >= self.config.steps or self.group.any(late)

    def _stretch(self, began: float, stop: Stop, tracker: Tracker, progress: Progress) -> None:
        """Steps until the end, or until the run goes back to a checkpoint."""
        told = self.config.networks
        seed = derived(self.config.seed, self.guard.restores) if self.guard.restores else self.config.seed
        draws = Draws(self.space, told.strategy, seed, told.random, told.band, told.balanced)
        for batch in self._stream():
            if self._finished(began):
                return
            networks = draws.at(self.done)
            loss, roles, norm = self._one(batch, networks)
            if loss is None:
                saved = self._newest()
                assert saved is not None  # there is one from before the first step
                progress.say(f"the loss of step {self.done} is not finite: back to step {saved.step}")
                self._restore(saved)
                return
            self.done += 1
            lr = self.optimizer.param_groups[0]["lr"]
            tracker.log(self.done, {"loss": loss, "lr": lr, "gradient_norm": norm, **roles})
            progress.update(self.done, self.config.batch, loss=round(loss, 4), lr=lr)
            if self.config.evaluate_every and self.done % self.config.evaluate_every == 0:
                found = self._evaluate("search", self.data)
                tracker.log(self.done, found)
                progress.say(f"step {self.done}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
            asked = self.group.any(stop.requested)
            if asked or self.done % self.config.save_every == 0:
                self._save()
            if asked:
                progress.say(f"asked to end: step {self.done} is saved, --resume goes on from it")
                self.group.barrier()
                stop.leave()

    def _one(self, batch: Batch, networks: tuple[Draw, ...]) -> tuple[float | None, dict[str, float], float]:
        """One update: loss (None where it is not finite: nothing was updated), that of each role, gradient norm."""
        if self.schedule is not None:
            self.schedule.step_update(self.done)
        result = self.step(self.done, batch, networks, self.group.rank)
        loss = self.group.mean([result.loss])[0]
        digest = networks[-1].architecture.digest
        if self.guard.judge(self.done, loss, digest) is not Verdict.GOOD:
            self._zero()
            return None, {}, 0.0
        self.group.mean_gradients(self.parameters)
        self.step.scaler.unscale_(self.optimizer)
        clip = self.config.optimization.clip
        with_gradient = [parameter for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(with_gradient, clip or float("inf"))
        self.step.scaler.step(self.optimizer)
        self.step.scaler.update()
        self._zero()
        if self.ema is not None:
            self.ema.update(self.supernet, step=self.done)
        return loss, {f"loss_{role}": value for role, value in result.roles.items()}, float(norm)

    def _zero(self) -> None:
        self.supernet.zero_grad()
        self.optimizer.zero_grad()

    def _stream(self) -> Iterator[Batch]:
        return self.batches.from_step(self.done)

    def _trackers(self, resume_step: int | None) -> Tracker:
        config = self.config.model_dump(mode="json")
        return open_trackers(self.config.trackers, self.folder, config, resume_step, self.group.rank)

    def _save(self) -> None:
        """A checkpoint of now, unless there is one."""
        if self.saved == self.done:
            return
        tensors, plain = of_optimizer(self.optimizer)
        tensors |= of_module("supernet", self.supernet)
        if self.ema is not None:
            tensors |= of_module("ema", self.ema.module)
        if self.step.teacher is not None:
            tensors |= of_module("teacher", self.step.teacher)
        state = {"optimizer": plain, "scaler": self.step.scaler.state_dict(), "restores": self.guard.restores}
        self.checkpoints.save(self.done, tensors, state)
        self.saved = self.done

    def _newest(self) -> Saved | None:
        """The newest sound checkpoint, the same on every process: the folder is one that all see."""
        saved = self.checkpoints.latest()
        step = self.group.agree(None if saved is None else saved.step)
        if step is None or (saved is not None and saved.step == step):
            return saved
        return self.checkpoints.load(step)

    def _restore(self, saved: Saved) -> None:
        into_module("supernet", self.supernet, saved.tensors)
        if self.ema is not None:
            into_module("ema", self.ema.module, saved.tensors)
        if self.step.teacher is not None:
            into_module("teacher", self.step.teacher, saved.tensors)
        into_optimizer(self.optimizer, saved.tensors, saved.state["optimizer"])
        if saved.state["scaler"]:
            self.step.scaler.load_state_dict(saved.state["scaler"])
        self.guard.restores = max(self.guard.restores, saved.state["restores"])
        self.done = self.saved = saved.step
        self._zero()

    def _evaluate(self, split: str, data: Data) -> dict[str, float]:
        """Accuracy of the largest and the smallest network, on every process alike."""
        supernet = self.supernet if self.ema is None else self.ema.module
        smallest, largest, _ = extremes(self.space)
        found = {}
        named = {"largest": largest} if largest == smallest else {"largest": largest, "smallest": smallest}
        for name, architecture in named.items():
            network = supernet.extract(architecture)
            if has_batch_norm(network):
                recalibrate(network, self.data, self.config.calibration)
            found[f"{split}_accuracy_{name}"] = evaluate(network, data, split).accuracy
        return found

    def _figures(self, progress: Progress, seconds: float, test: bool) -> dict[str, Any]:
        """What the run comes to, on the search split and, if wanted, the test split."""
        found = self._evaluate("search", self.data)
        if test:
            found |= self._evaluate("test", open_test(self.data))
        progress.say(", ".join(f"{name} {value:.4f}" for name, value in found.items()))
        finished = self.done >= self.config.steps
        return {"step": self.done, "finished": finished, "seconds": seconds, "restores": self.guard.restores, **found}
