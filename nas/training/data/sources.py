"""Where the images of timm's data sets come from, each read by its number: timm's `create_dataset`, and tar files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol

from nas.core.errors import InputError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

    from nas.training.data.base import Wanted

TRAIN, VALIDATION = "train", "validation"
TORCH = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
SPREAD = 64  # images that are looked at where names and sizes of files do not tell one data set from another


class Source(Protocol):
    """Images by number, with what they are."""

    classes: int

    def __len__(self) -> int: ...

    def image(self, index: int) -> tuple[Image, int]:
        """The image, in any mode, and its class; OSError and the like where it cannot be read."""

    def place(self, index: int) -> str:
        """The file, or the number in what has no files."""

    def contents(self) -> Iterator[bytes]:
        """For the fingerprint."""


def open_source(wanted: Wanted, split: str) -> Source:
    """TRAIN or VALIDATION of a data set by timm's name."""
    kind, _, rest = wanted.name.partition(":" if wanted.name.startswith("folder") else "/")
    root = os.path.expanduser(rest or wanted.root or "") if kind == "folder" else wanted.root
    if kind != "hfds" and not (root and os.path.isdir(root)):
        raise InputError("no such folder of data", root or "", wanted.name)
    if kind == "folder":
        return _folder(str(root), split)
    if kind == "torch":
        return _torch(wanted.name, str(root), split)
    if kind == "hfds":
        return _hugging_face(wanted.name, root, split)
    from nas.training.data.shards import Shards

    return Shards(str(root), split)


class Files:
    """A data set of timm's that reads by number: folders of images, Hugging Face's."""

    def __init__(self, reader: Any, name: str, in_files: bool) -> None:
        self._reader, self._name, self._in_files = reader, name, in_files
        self.classes = len(reader.class_to_idx)

    def __len__(self) -> int:
        return len(self._reader)

    def image(self, index: int) -> tuple[Image, int]:
        from PIL import Image

        file: IO[bytes]
        file, label = self._reader[index]
        with file:
            image = Image.open(file)
            image.load()
        return image, label

    def place(self, index: int) -> str:
        name = self._reader.filename(index, absolute=True)
        return str(name) if name else f"{self._name}: image {index}"

    def contents(self) -> Iterator[bytes]:
        """Names and sizes of the files; else some images."""
        if not self._in_files:
            yield from _some(self)
            return
        yield repr(sorted(self._reader.class_to_idx.items())).encode()
        for index in range(len(self)):
            size = os.path.getsize(self._reader.filename(index, absolute=True))
            yield f"{self._reader.filename(index)}:{size}\n".encode()


class Numbered:
    """A data set of torchvision's."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name, self.classes = dataset, name, len(dataset.classes)

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, index: int) -> tuple[Image, int]:
        image, label = self._dataset[index]
        return image, int(label)

    def place(self, index: int) -> str:
        return f"{self._name}: image {index}"

    def contents(self) -> Iterator[bytes]:
        yield from _some(self)


def _some(source: Source) -> Iterator[bytes]:
    """How many images there are, and a few of them, evenly spread."""
    yield f"{len(source)} images in {source.classes} classes".encode()
    for index in range(0, len(source), max(1, len(source) // SPREAD)):
        image, label = source.image(index)
        yield hashlib.sha256(image.tobytes()).digest() + str(label).encode()


def _folder(root: str, split: str) -> Source:
    """timm looks for PATH/train and PATH/val (or training, validation ...) and takes PATH itself if there is none."""
    train = _created("", root, TRAIN)
    validation_root = _split_folder(root, VALIDATION)
    if train.reader.root == root and validation_root != root:
        raise InputError("a folder with validation images has its training images in `train`", place=root)
    if split == TRAIN:
        return Files(train.reader, root, in_files=True)
    if validation_root == root:
        raise InputError("no validation images: a folder `val` beside `train`", place=root)
    found = _created("", root, VALIDATION)
    if found.reader.class_to_idx != train.reader.class_to_idx:
        only = sorted(set(found.reader.class_to_idx) ^ set(train.reader.class_to_idx))
        raise InputError("training and validation images have the same classes", only, validation_root)
    return Files(found.reader, root, in_files=True)


def _split_folder(root: str, split: str) -> str:
    from timm.data.dataset_factory import _search_split  # what create_dataset itself asks

    return str(_search_split(root, split))


def _torch(name: str, root: str, split: str) -> Source:
    short = name.partition("/")[2].lower()
    if short not in TORCH:
        raise InputError("not a data set of torchvision's that is read here", name, nearest=nearest(short, TORCH))
    return Numbered(_created(name, root, split), name)


def _hugging_face(name: str, root: str | None, split: str) -> Source:
    if split == TRAIN:
        return Files(_created(name, root, TRAIN).reader, name, in_files=False)
    try:
        found = _created(name, root, VALIDATION)
    except InputError:  # many have no split of that name
        found = _created(name, root, "test")
    return Files(found.reader, name, in_files=False)


def _created(name: str, root: str | None, split: str) -> Any:
    """timm's data set; what it refuses is told as bad input."""
    from timm.data.dataset_factory import create_dataset

    try:
        return create_dataset(name, root=root, split=split)
    except ImportError as error:
        raise InputError(f"this data needs a package that is not installed: {error.name}", place=name) from None
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise InputError(f"the {split} images cannot be opened ({error})", place=name or str(root)) from None
