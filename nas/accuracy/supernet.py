"""Accuracy with inherited weights: the network as the trained supernet of a run has it, on the search split.

Guo et al., "Single path one-shot neural architecture search with uniform sampling", ECCV 2020,
https://arxiv.org/abs/1904.00420. The deviation is that of drawing the split's images; that inherited weights rank
networks as training would is not in it: `nas.bench ranking` measures that.
"""

from __future__ import annotations

import math
from functools import cached_property

from nas.accuracy.base import Estimate, Estimator, Setting, Unscorable
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.training.evaluating import Evaluator
from nas.training.start import Trained, open_for, trained


class Supernet(Estimator):
    about = "accuracy with the weights of a trained supernet (single path one-shot, Guo et al., ECCV 2020)"
    kind = "trained"
    unit = "top-1 %"
    cost = "a pass of the search split"

    def __init__(self, setting: Setting):
        if setting.run is None:
            raise InputError("inherited weights are those of a run of nas.train: give its folder", place="run")
        super().__init__(setting)

    @cached_property
    def run(self) -> Trained:
        """The run that the weights are of."""
        return trained(str(self.setting.run))

    @cached_property
    def _evaluator(self) -> Evaluator:
        supernet = self.run.supernet.to(self.setting.device)
        return Evaluator(supernet, open_for(self.run.config), "search", self.setting.cache, self.run.config.calibration)

    def measure(self, architecture: Architecture) -> Estimate:
        if architecture not in self.run.space:
            raise Unscorable(f"the network is not in the space of {self.setting.run}")
        found = self._evaluator.of(architecture)
        return of_accuracy(found.accuracy, found.images)


def of_accuracy(accuracy: float, images: int) -> Estimate:
    """Percent right of so many images, with the deviation of drawing them; never none, one image being the least."""
    shrunk = (accuracy * images + 1) / (images + 2)
    return Estimate(100 * accuracy, 100 * math.sqrt(shrunk * (1 - shrunk) / images))
