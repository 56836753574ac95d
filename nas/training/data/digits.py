"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, enlarged, nothing downloaded.

The test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49). Splits are drawn once from the data's seed, each class in the same shares:
1,257 images to train, 180 for the search, 360 to test (70, 10 and 20 %).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from nas.training.data import transforms
from nas.training.data.augment import Augment
from nas.training.data.base import Data, Indices, Labelled, Shape, side
from nas.training.data.randomness import Seeds, derived

SEARCH, TEST = 180, 360
INK = 16.0  # the darkest value of a pixel


class Digits(Data):
    """Enlarged by bicubic interpolation, normalised with the mean and deviation of the training split's pixels."""

    names = ("digits",)
    able = transforms.ABLE
    usual = Augment(shift=0.1, rotate=10.0, zoom=0.1)

    def _open(self) -> Shape:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        size = side(self.wanted, 32, 8, 128)
        channels = self.wanted.channels or 1
        found = load_digits()
        small, labels = found.images.astype(np.float32) / INK, found.target.astype(np.int64)
        state = derived(self.wanted.seed, "digits") % 2**32
        rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=state)
        train, search = train_test_split(rest, test_size=SEARCH, stratify=labels[rest], random_state=state)
        enlarged = F.interpolate(torch.from_numpy(small)[:, None], (size, size), mode="bicubic", align_corners=False)
        images = enlarged.clamp_(0, 1)
        known = images[np.sort(train)]
        images = (images - known.mean()) / known.std()
        images = images.expand(-1, channels, -1, -1)
        rows = {"train": np.sort(train), "search": np.sort(search), "test": np.sort(test)}
        self._parts = {split: (images[rows[split]].contiguous(), labels[rows[split]]) for split in self.splits}
        return Shape(10, channels, size)

    def _length(self, split: str) -> int:
        return len(self._parts[split][1])

    def _read(self, split: str, indices: Indices, augment: Augment | None, seeds: Seeds) -> Labelled:
        images, labels = self._parts[split]
        chosen = images[torch.from_numpy(indices)]
        if augment is not None:
            chosen = transforms.changed(chosen, augment, seeds)
        return chosen, torch.from_numpy(labels[indices])

    def _contents(self) -> Iterator[bytes]:
        for images, labels in self._parts.values():
            yield images.mul(1e4).round().to(torch.int32).numpy().tobytes()  # last bits may differ between machines
            yield labels.tobytes()
