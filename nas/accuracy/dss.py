"""DSS of TF-TAS: diversity of the weights that mix tokens, plus saliency of those that mix channels.

Source: Zhou et al., "Training-free transformer architecture search", CVPR 2022, https://arxiv.org/abs/2203.12217: over
the weight matrices of attention the sum of |gradient|_nuc * |weight|_nuc (nuclear norms fall as ranks collapse),
over the other weights the sum of |gradient * weight|, with SynFlow's gradients. The value is the logarithm of the sum.
Here every mixer counts as attention does, with kernels and tables as matrices of their first dimension, and q, k and v
are matrices of their own (one of three times the rows in the paper's code, where layer norms act as they are).
Limits: as those of SynFlow.
"""

from __future__ import annotations

import math

import torch

from nas.accuracy._passes import batch, built, flow_gradients
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.accuracy.snip import saliency
from nas.core.architecture import Architecture


class Dss(Estimator):
    about = "synaptic diversity of mixers and saliency of the rest (DSS of TF-TAS, Zhou et al., CVPR 2022)"
    kind = "proxy"
    cost = "one forward and backward pass of one image in double precision, and two decompositions a mixer's matrix"

    def measure(self, architecture: Architecture) -> Estimate:
        weights = flow_gradients(built(self.setting, architecture), batch(self.setting)[0])
        mixing = [weight for weight in weights if ".mixer." in weight.name]
        score = saliency(weight for weight in weights if ".mixer." not in weight.name)
        score += sum(nuclear_norm(weight.value) * nuclear_norm(weight.gradient) for weight in mixing)
        if score <= 0:
            raise Unscorable("no flow reaches the logits")
        return Estimate(math.log(score))


def nuclear_norm(weight: torch.Tensor) -> float:
    """The sum of the singular values of a tensor, as a matrix of its first dimension."""
    return float(torch.linalg.matrix_norm(weight.flatten(1), "nuc"))
