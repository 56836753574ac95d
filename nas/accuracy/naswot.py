"""NASWOT: how differently an untrained network treats different images.

Source: Mellor et al., "Neural architecture search without training", ICML 2021, https://arxiv.org/abs/2006.04647: each
image has a binary code, one bit a rectified unit (active or not); the score is the logarithm of the determinant of the
matrix that counts, for each pair of images, the bits on which their codes agree.
Smooth activations (GELU, SiLU, hard swish, tanh, sigmoid gates) have no off state: their bit is the sign of their
input, which for ReLU is the bit of the paper. Units of tokens that were dropped do not count.
Limits: unlike codes are needed (noise has them); a network without any of these activations has no code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nas.accuracy._passes import batch, built
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.core.architecture import Architecture

_NAMES = ("gelu", "relu", "silu", "hardswish", "hardtanh", "tanh", "sigmoid")
ACTIVATIONS = {getattr(torch.ops.aten, name + end) for name in _NAMES for end in ("", "_")}  # also those in place


class Naswot(Estimator):
    about = "log determinant of the agreement of activation codes (NASWOT, Mellor et al., ICML 2021)"
    kind = "proxy"
    cost = "one forward pass"

    def measure(self, architecture: Architecture) -> Estimate:
        network, (images, _) = built(self.setting, architecture), batch(self.setting)
        with torch.no_grad(), Agreement(len(images)) as agreement:
            network(images)
        return Estimate(log_determinant(agreement))


class Agreement(TorchDispatchMode):
    """Counts, while it is active, the bits of activations on which each pair of images agrees.

    It sees the operations themselves, whether a module or a function made them. What has less than three dimensions is
    no activation of an image (a gate of the weights alone).
    """

    def __init__(self, images: int):
        super().__init__()
        self.units = 0
        self.products = torch.zeros(images, images, dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in ACTIVATIONS:
            self._count(args[0])
        return func(*args, **(kwargs or {}))

    def _count(self, x: Tensor) -> None:
        images = len(self.products)
        if x.dim() < 3 or len(x) % images:
            return
        signs = torch.where(x.reshape(images, -1) > 0, 1.0, -1.0)
        self.units += signs.shape[1]
        self.products += (signs @ signs.T).to("cpu", torch.float64)

    @property
    def matrix(self) -> Tensor:
        """(B, B) bits on which two codes agree: equal ones less unequal ones is the product of signs."""
        return (self.units + self.products) / 2


def log_determinant(agreement: Agreement) -> float:
    """The score of the codes counted."""
    if not agreement.units:
        raise Unscorable("the network has no activation whose sign could be read")
    sign, value = torch.linalg.slogdet(agreement.matrix)
    if float(sign) <= 0:
        raise Unscorable("two images have the same code")
    return float(value)
