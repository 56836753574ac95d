"""Depth times the logarithm of the width: the third baseline, and the hardest to beat on networks of one width.

Of a pyramid, each block counts the logarithm of its own stage's width.
"""

from __future__ import annotations

import math

from nas.accuracy.base import Estimate, Estimator
from nas.core.architecture import Architecture


class DepthWidth(Estimator):
    about = "sum over blocks of the logarithm of their width"
    kind = "trivial"
    cost = "a formula"

    def measure(self, architecture: Architecture) -> Estimate:
        return Estimate(sum(len(stage.blocks) * math.log(stage.dim) for stage in architecture.stages))
