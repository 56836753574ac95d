"""timm's data sets by their names there, with timm's transforms (https://github.com/huggingface/pytorch-image-models).

The training set is cut by a hash of (seed, number of the image): one in ten goes to the search, the others train. The
test split is timm's validation split, which neither sees. Images are colour (or grey, by choice) of `size` pixels,
normalised with ImageNet's mean and deviation. Without augmentation an image is scaled and its middle cut out, as timm
evaluates: 87.5 % of the shorter side from 128 pixels on, all of it below. Streams (tfds/, hfids/) cannot be read at any
step and are not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.core.errors import InputError
from nas.training.data.augment import Augment
from nas.training.data.base import Data, Indices, Labelled, Shape, side
from nas.training.data.randomness import Seeds, derived, kept_generators, sample_seeds, seed_generators, uniforms
from nas.training.data.sources import TRAIN, VALIDATION, Source, open_source

SEARCH_SHARE = 0.1
WHOLE_BELOW = 128  # pixels: smaller images are not cut at the borders


class TimmData(Data):
    """The fingerprint sees names, sizes and classes of files; of data without files, 64 images spread over it."""

    names = ("folder", "folder:", "torch/", "hfds/", "wds/")
    able = frozenset({"crop", "flip", "color_jitter", "rand_augment", "erase"})
    usual = Augment(  # DeiT's (Touvron et al., ICML 2021, https://arxiv.org/abs/2012.12877, table 9)
        crop=0.08, flip=0.5, rand_augment="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0
    )

    def _open(self) -> Shape:
        size = side(self.wanted, 224, 8, 1024)
        channels = self.wanted.channels or 3
        self._transforms: dict[Augment | None, Callable[[Any], Tensor]] = {}
        self._mode = "RGB" if channels == 3 else "L"
        if channels == 1:
            self.usual = self.usual.model_copy(update={"rand_augment": ""})  # which is for images in colour
        self._source: Source = open_source(self.wanted, TRAIN if "train" in self.splits else VALIDATION)
        everything = np.arange(len(self._source))
        if "train" in self.splits:
            chance = uniforms(sample_seeds(derived(self.wanted.seed, "search split"), everything), 1)[:, 0]
            self._numbers = {"train": everything[chance >= SEARCH_SHARE], "search": everything[chance < SEARCH_SHARE]}
        else:
            self._numbers = {split: everything for split in self.splits}
        for split, numbers in self._numbers.items():
            if not len(numbers):
                raise InputError(f"too few images: none is left for the {split} split", len(everything), self.name)
        return Shape(self._source.classes, channels, size)

    def _length(self, split: str) -> int:
        return len(self._numbers[split])

    def _read(self, split: str, indices: Indices, augment: Augment | None, seeds: Seeds) -> Labelled:
        change = self._transform(augment)
        images = torch.empty(len(indices), self.channels, self.size, self.size)
        labels = torch.empty(len(indices), dtype=torch.int64)
        with kept_generators():
            for row, number in enumerate(self._numbers[split][indices].tolist()):
                image, labels[row] = self._image(number)
                seed_generators(int(seeds[row]))
                images[row] = change(image)
        return images, labels

    def _image(self, number: int) -> tuple[Any, int]:
        from PIL.Image import DecompressionBombError

        try:
            image, label = self._source.image(number)
            image = image.convert(self._mode)
        except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:
            raise InputError(f"the image cannot be read ({error})", place=self._source.place(number)) from None
        if not 0 <= label < self.classes:
            raise InputError(f"the class is 0 to {self.classes - 1}", label, self._source.place(number))
        return image, label

    def _transform(self, augment: Augment | None) -> Callable[[Any], Tensor]:
        """timm's transform, made once."""
        if augment not in self._transforms:
            self._transforms[augment] = self._new_transform(augment)
        return self._transforms[augment]

    def _new_transform(self, augment: Augment | None) -> Callable[[Any], Tensor]:
        from timm.data.transforms_factory import create_transform

        mean, deviation = normalisation(self.channels)
        common: dict[str, Any] = {"input_size": self.size, "interpolation": "bicubic", "mean": mean, "std": deviation}
        if augment is None:
            return create_transform(**common, crop_pct=0.875 if self.size >= WHOLE_BELOW else 1.0)
        if self.channels == 1 and augment.rand_augment:
            raise InputError("RandAugment is for images in colour", augment.rand_augment, self.name)
        try:
            return create_transform(
                **common,
                is_training=True,
                scale=(augment.crop, 1.0),
                ratio=(3 / 4, 4 / 3) if augment.crop < 1 else (1.0, 1.0),
                hflip=augment.flip,
                color_jitter=augment.color_jitter or None,  # type: ignore[arg-type]
                auto_augment=augment.rand_augment or None,
                re_prob=augment.erase,
                re_mode="pixel",
            )
        except (AssertionError, ValueError) as error:
            raise InputError(f"not a RandAugment of timm's ({error})", augment.rand_augment) from None

    def _contents(self) -> Iterator[bytes]:
        yield from self._source.contents()


def normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of values from 0 to 1: ImageNet's; of grey images, the channels' averages."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    if channels == 1:
        return (sum(IMAGENET_DEFAULT_MEAN) / 3,), (sum(IMAGENET_DEFAULT_STD) / 3,)
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
