"""Small data sets in files, for tests: flat colours, so that what is read can be told."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SHADES = {"ape": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}  # colour of a class


def image_folder(root: Path, train: int = 40, validation: int = 6) -> Path:
    """`train` and `val` with so many images a class; each image has its class's colour and its own brightness."""
    for split, count in (("train", train), ("val", validation)):
        for name, shade in SHADES.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(shade, number).save(folder / f"{number:03}.png")
    return root


def picture(shade: tuple[int, int, int], number: int) -> Image.Image:
    """Taller than wide; the left half is darker."""
    pixels = np.empty((20, 16, 3), np.uint8)
    pixels[:] = np.array(shade) + number % 50
    pixels[:, :8] //= 2
    return Image.fromarray(pixels)


def tar_files(root: Path, train: int = 30, validation: int = 6) -> Path:
    """Two tar files to train and one to validate, as WebDataset has them; image i has class i % 3."""
    root.mkdir()
    shades = list(SHADES.values())
    splits: dict[str, dict[str, object]] = {}
    for split, count, shards in (("train", train, 2), ("validation", validation, 1)):
        names = [f"{split}-{shard}.tar" for shard in range(shards)]
        for shard, name in enumerate(names):
            with tarfile.open(root / name, "w") as archive:
                for number in range(shard, count, shards):
                    file = io.BytesIO()
                    picture(shades[number % 3], number).save(file, "PNG")
                    add(archive, f"{number:04}.png", file.getvalue())
                    add(archive, f"{number:04}.cls", str(number % 3).encode())
        splits[split] = {"name": split, "num_samples": count, "filenames": names, "shard_lengths": [count // shards]}
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return root


def add(archive: tarfile.TarFile, name: str, held: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(held)
    archive.addfile(member, io.BytesIO(held))


def mnist_files(root: Path, train: int = 50, test: int = 10) -> Path:
    """MNIST's own format (https://yann.lecun.org/exdb/mnist): image i is of brightness i, its class i % 10."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return root
