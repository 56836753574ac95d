"""Parameters: the baseline that published proxies often do not beat."""

from __future__ import annotations

from nas.accuracy.base import Estimate, Estimator
from nas.core.architecture import Architecture


class Params(Estimator):
    about = "number of parameters"
    kind = "trivial"
    cost = "a formula"

    def measure(self, architecture: Architecture) -> Estimate:
        return Estimate(self.costs.cost(architecture).params)
