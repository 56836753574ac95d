"""Images in tar files as WebDataset writes them (https://github.com/webdataset/webdataset), each read by its number.

timm streams such files in the order they have; a stream cannot begin at any step. Here the tar headers are read once,
and an image is then a place in a file. The folder has timm's `_info.json`: splits with the names of their tar files. A
sample is `key.jpg` (or jpeg, png, webp) with its class as text in `key.cls`. Tar files are local and not compressed.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nas.core.errors import InputError, nearest
from nas.core.runs import read_bounded

if TYPE_CHECKING:
    from PIL.Image import Image

INFO = ("_info.json", "info.json")
MOST_INFO = 64_000_000  # bytes
IMAGES = ("jpg", "jpeg", "png", "webp")


class Piece(NamedTuple):
    """Where an image lies."""

    file: str
    key: str
    offset: int
    size: int
    label: int


class Shards:
    """One split of a folder of tar files."""

    def __init__(self, root: str, split: str) -> None:
        self._root = root
        splits = _splits(root)
        if split not in splits:
            raise InputError("no such split in the data's _info.json", split, root, nearest(split, splits))
        self._pieces = [piece for file in splits[split] for piece in _pieces(root, file)]
        if not self._pieces:
            raise InputError("the tar files hold no image with a class (key.jpg with key.cls)", place=root)
        first = self._pieces if split == "train" else Shards(root, "train")._pieces
        self.classes = 1 + max(piece.label for piece in first)

    def __len__(self) -> int:
        return len(self._pieces)

    def image(self, index: int) -> tuple[Image, int]:
        from PIL import Image

        piece = self._pieces[index]
        with open(os.path.join(self._root, piece.file), "rb") as file:
            file.seek(piece.offset)
            image = Image.open(io.BytesIO(file.read(piece.size)))
        image.load()
        return image, piece.label

    def place(self, index: int) -> str:
        piece = self._pieces[index]
        return f"{os.path.join(self._root, piece.file)}: {piece.key}"

    def contents(self) -> Iterator[bytes]:
        """Names, sizes and classes."""
        for piece in self._pieces:
            yield f"{piece.file}:{piece.key}:{piece.size}:{piece.label}\n".encode()


def _splits(root: str) -> dict[str, list[str]]:
    """The tar files of each split, by timm's _info.json."""
    path = next((os.path.join(root, name) for name in INFO if os.path.isfile(os.path.join(root, name))), None)
    if path is None:
        raise InputError("tar files of images come with an _info.json", place=root)
    try:
        info: Any = json.loads(read_bounded(path, MOST_INFO, "an _info.json"))
        return {name: [str(file) for file in told["filenames"]] for name, told in info["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError('the file maps "splits" to names, and those to "filenames"', place=path) from None


def _pieces(root: str, file: str) -> Iterator[Piece]:
    """The samples of a tar file that have an image and a class, in order."""
    path = os.path.join(root, file)
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, slash, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = folder + slash + stem
                if member.isreg() and ending.lower() in IMAGES:
                    images[key] = member.offset_data, member.size
                elif member.isreg() and ending == "cls" and (held := archive.extractfile(member)) is not None:
                    labels[key] = int(held.read(32))
    except ValueError:
        raise InputError("a class is a whole number", key, path) from None
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"the tar file cannot be read ({error})", place=path) from None
    for key, (offset, size) in images.items():
        if key in labels:
            yield Piece(file, key, offset, size, labels[key])
