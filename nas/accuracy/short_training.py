"""Short training: the network with the weights of a run, or with fresh ones, trained for some steps with its recipe.

The figure is that of the search split after the steps. It costs minutes where the others cost seconds, and is what the
others are an estimate of.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from nas.accuracy.base import Estimate, Estimator, Setting, Unscorable
from nas.accuracy.supernet import of_accuracy
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import open_run, write_whole
from nas.core.space import write_architecture
from nas.training.config import Networks, TrainConfig
from nas.training.distributed import Group
from nas.training.run import train
from nas.training.start import open_for


class ShortTraining(Estimator):
    about = "accuracy after some steps of training from the weights of a run"
    kind = "trained"
    unit = "top-1 %"
    cost = "forward and backward passes of some hundred batches"

    def __init__(self, setting: Setting):
        if setting.run is None:
            raise InputError("short training takes its recipe from a run of nas.train: give its folder", place="run")
        super().__init__(setting)
        self._recipe = TrainConfig.model_validate(open_run(setting.run).config)
        self._images = open_for(self._recipe).length("search")

    def measure(self, architecture: Architecture) -> Estimate:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.yaml"
            write_whole(file, write_architecture(architecture, "network"))
            changes = {
                "arch": str(file),
                "init": str(self.setting.run),
                "steps": self.setting.steps,
                "networks": Networks(strategy="single"),
                "optimization": self._recipe.optimization.model_copy(update={"warmup": self.setting.steps // 10}),
                "seed": self.setting.seed,
                "device": self.setting.device,
                "evaluate_every": 0,
                "save_every": max(1, self.setting.steps),
                "keep": 1,
            }
            config = self._recipe.model_copy(update=changes)
            alone = Group(0, 1, 0, torch.device(self.setting.device))
            try:
                found = train(config, folder, "run", [], alone, shown=False, test=False)
            except InputError as error:
                raise Unscorable(str(error)) from error
        return of_accuracy(found["search_accuracy_largest"], self._images)
