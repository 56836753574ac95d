"""Data by name. A data set is a file of this folder with one subclass of `Data`; adding one is adding a file.

    digits               scikit-learn's handwritten digits, embedded: nothing to download
    clutter              letters and figures in clutter, made from a seed, unlimited
    folder:PATH          folders of images, a class each, in PATH/train and PATH/val (or `folder` with a root)
    torch/NAME           torchvision's cifar10, cifar100, mnist, kmnist, fashion_mnist, qmnist under root
    hfds/NAME            Hugging Face's datasets (that package must be installed); root is its cache
    wds/NAME             tar files of WebDataset under root, with their _info.json

Imports nothing heavy until something is opened: configurations import from this folder.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from nas.core.errors import InputError, nearest

if TYPE_CHECKING:
    from nas.training.data.base import Data


def open_data(
    name: str,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """Training and search splits of a data set, with the test split out of reach; InputError names the nearest.

    size is in pixels, channels 1 or 3, both the data's own without. The seed fixes which images belong to which split,
    or the pictures themselves where they are made: runs that are compared share it.
    """
    from nas.training.data.base import TRAINING, Wanted

    wanted = Wanted(name, size, channels, seed, None if root is None else os.fspath(root))
    for beginning, found in _known().items():
        if name == beginning or (beginning.endswith(("/", ":")) and name.startswith(beginning)):
            return found(wanted, TRAINING)
    raise InputError("unknown data", name, "data", nearest(name, data_names()))


def data_names() -> tuple[str, ...]:
    """The names, and beginnings of names, that `open_data` takes."""
    return tuple(_known())


@cache
def _known() -> dict[str, type[Data]]:
    from nas.training.data.base import Data

    found = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Data) and value is not Data:
                found.update(dict.fromkeys(value.names, value))
    return found
