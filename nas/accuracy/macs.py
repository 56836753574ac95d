"""Multiply-accumulates: the second baseline."""

from __future__ import annotations

from nas.accuracy.base import Estimate, Estimator
from nas.core.architecture import Architecture


class Macs(Estimator):
    about = "number of multiply-accumulates for one image"
    kind = "trivial"
    cost = "a formula"

    def measure(self, architecture: Architecture) -> Estimate:
        return Estimate(self.costs.cost(architecture).macs)
