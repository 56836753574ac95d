"""Augmentation of images that are tensors already, each by its own seed; equal however images are put in batches."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.training.data.augment import MOVING, Augment
from nas.training.data.randomness import Seeds, kept_generators, seed_generators, uniforms

ABLE = MOVING | {"flip", "erase"}


def changed(images: Tensor, augment: Augment, seeds: Seeds) -> Tensor:
    """Images (n, C, S, S), moved, flipped and erased; the tensor that came in may be written to."""
    draws = uniforms(seeds, 5)
    if augment.active & MOVING or augment.flip:
        images = _moved(images, augment, draws)
    return _erased(images, augment.erase, seeds) if augment.erase else images


def _moved(images: Tensor, augment: Augment, draws: NDArray[np.float64]) -> Tensor:
    """One bilinear resampling for shift, rotation, zoom and flip; outside the image its border goes on."""
    shift_x, shift_y, angle, zoom = (2 * draws[:, :4] - 1).T
    flip = np.where(draws[:, 4] < augment.flip, -1.0, 1.0)
    radians = np.radians(augment.rotate * angle).tolist()
    scale = 1 / (1 + augment.zoom * zoom)
    cosine = scale * np.array([math.cos(each) for each in radians])  # scalar by scalar: the same in any batch
    sine = scale * np.array([math.sin(each) for each in radians])
    rows = [cosine * flip, -sine, 2 * augment.shift * shift_x, sine * flip, cosine, 2 * augment.shift * shift_y]
    xx, xy, x, yx, yy, y = torch.from_numpy(np.stack(rows)).float()[:, :, None, None]
    side = images.shape[-1]
    across = (torch.arange(side) + 0.5) * (2 / side) - 1
    down = across[:, None]
    grid = torch.stack([xx * across + xy * down + x, yx * across + yy * down + y], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _erased(images: Tensor, probability: float, seeds: Seeds) -> Tensor:
    from timm.data.random_erasing import RandomErasing

    erasing = RandomErasing(probability, mode="pixel", device="cpu")
    with kept_generators():
        for image, seed in zip(images, seeds.tolist(), strict=True):
            seed_generators(seed)
            erasing(image)
    return images
