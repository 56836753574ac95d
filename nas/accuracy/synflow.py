"""SynFlow: the saliency of weights for the flow from input to output, without data.

Source: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020,
https://arxiv.org/abs/2006.05467: with every parameter at its absolute value and an image of ones, the sum of
|weight * gradient of the summed logits|. The value is its logarithm, because the sum spans tens of powers of ten.
Limits: the paper's networks have batch norms alone; what becomes of other norms is in `_passes.FlowNorm`.
"""

from __future__ import annotations

import math

from nas.accuracy._passes import batch, built, flow_gradients
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.accuracy.snip import saliency
from nas.core.architecture import Architecture


class SynFlow(Estimator):
    about = "logarithm of the synaptic flow (Tanaka et al., NeurIPS 2020)"
    kind = "proxy"
    cost = "one forward and backward pass of one image, in double precision"

    def measure(self, architecture: Architecture) -> Estimate:
        flow = saliency(flow_gradients(built(self.setting, architecture), batch(self.setting)[0]))
        if flow <= 0:
            raise Unscorable("no flow reaches the logits")
        return Estimate(math.log(flow))
