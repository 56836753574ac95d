"""Letters and figures in clutter, made from a seed: 36 classes (A to Z, 0 to 9), colour, 64 pixels a side and up.

An image is a base colour with a gradient and three windows into a store of textures (coarse, middle and fine noise,
some of it strokes), up to six distractors (pieces of characters, bars, discs, frames, wedges, arcs), and upon them one
whole character in one of 20 fonts, turned by up to 15 degrees. Each image has a difficulty, drawn evenly from 0 to 1:
the higher, the smaller is the character (0.46 to 0.17 sides tall), fainter, coloured, light or dark, and farther from
the middle; textures become stronger and distractors more. The easy images are what a network begins to learn from, the
hard ones keep networks apart. The character's box is a tenth of an image on average, and of a grid of 8 x 8 tokens
85 % hold none of it. O and 0, and I and 1, are hardly different in some fonts: 100 % cannot be reached.

Image i of a split is a function of (seed, split, i). Textures and fonts are common to the splits, the streams of the
choices are not. Training images never end; an epoch is said to have 50,000. Search has 5,000 images and test 10,000:
these are kept once drawn, while they fit in 256 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nas.core.errors import InputError
from nas.training.data import transforms
from nas.training.data.augment import Augment
from nas.training.data.base import Data, Indices, Labelled, Shape, side
from nas.training.data.glyphs import ANGLES, CHARACTERS, FACES, HEIGHTS, SHAPES, TURNS, Glyphs, Mask
from nas.training.data.randomness import Seeds, derived, sample_seeds, uniforms
from nas.training.data.textures import FIELDS, textures

RECIPE = 1  # goes up with every change of what is drawn
LENGTHS = {"train": 50_000, "search": 5_000, "test": 10_000}
CHOICES = 160  # random numbers of an image, more than any uses
MEAN, DEVIATION = 0.47, 0.16  # of pixel values over all images, about
# What an image has at difficulty 0 and at 1; its own lies between.
STRENGTHS = ((0.05, 0.2), (0.02, 0.18), (0.01, 0.1))  # of coarse, middle and fine texture
CONTRAST = (0.7, 0.25)  # between base and character
HEIGHT = (len(HEIGHTS) - 0.01, 0.0)  # place in the list of heights, up to SPREAD more or less
SPREAD = 1.0
REACH = (0.1, 1.0)  # from the middle, in parts of the way to the border
TINT, SLOPE, DARK = (0.02, 0.15), (0.05, 0.25), (0.0, 0.5)  # of the base; share of characters darker than it
HUE = (0.1, 0.4)  # by which a colour's parts differ in contrast
DISTRACTORS = (0.0, 6.0)  # at most, any number up to it
PIECES = 0.6  # part of the distractors that are pieces of characters
KEPT_BYTES = 256 * 2**20  # of the images of a split that are drawn once only

Colours = NDArray[np.float32]


class Drawn(NamedTuple):
    """The images of a split that were drawn already."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    there: NDArray[np.bool_]


class Clutter(Data):
    """Drawn when read: 0.4 ms an image of 64 pixels on the development machine, twice that until all masks are kept."""

    names = ("clutter",)
    able = transforms.ABLE
    usual = Augment()  # every image is new
    unlimited = True

    def _open(self) -> Shape:
        if self.wanted.channels == 1:
            raise InputError("clutter is in colour: 3 channels", self.wanted.channels, self.name)
        size = side(self.wanted, 64, 64, 512)
        self._painter = Painter(self.wanted.seed, size)
        self._drawn: dict[str, Drawn] = {}
        return Shape(len(CHARACTERS), 3, size)

    def _length(self, split: str) -> int:
        return LENGTHS[split]

    def _read(self, split: str, indices: Indices, augment: Augment | None, seeds: Seeds) -> Labelled:
        pixels, labels = self._pixels(split, indices)
        images = torch.from_numpy(pixels).to(torch.float32).div_(255.0).sub_(MEAN).div_(DEVIATION)
        if augment is not None:
            images = transforms.changed(images, augment, seeds)
        return images, torch.from_numpy(labels)

    def _pixels(self, split: str, indices: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Drawn, or taken from what was drawn of a split that ends."""
        stream = derived(self.wanted.seed, "clutter", split)
        if split == "train" or LENGTHS[split] * 3 * self.size**2 > KEPT_BYTES:
            return self._painter.paint(stream, indices)
        if split not in self._drawn:
            count = LENGTHS[split]
            empty = np.zeros((count, 3, self.size, self.size), np.uint8)
            self._drawn[split] = Drawn(empty, np.zeros(count, np.int64), np.zeros(count, bool))
        kept = self._drawn[split]
        missing = np.unique(indices[~kept.there[indices]])
        if len(missing):
            kept.images[missing], kept.labels[missing] = self._painter.paint(stream, missing)
            kept.there[missing] = True
        return kept.images[indices], kept.labels[indices]

    def _contents(self) -> Iterator[bytes]:
        yield f"recipe {RECIPE}".encode()
        yield from self._painter.contents()


class Painter:
    """Draws images of one size; no library function of numpy rounds otherwise on another machine in what it uses."""

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        self._glyphs = Glyphs(size)
        self._textures = textures(seed, size)
        ramp = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
        self._across, self._down = ramp[None, None, :], ramp[None, :, None]

    def contents(self) -> Iterator[bytes]:
        """What the images depend on beside their seeds."""
        yield self._glyphs.fingerprint()
        yield (self._textures * 1e4).astype(np.int32).tobytes()

    def paint(self, stream: int, indices: Indices) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (n, 3, size, size) and labels of these places in a stream."""
        images = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        labels = np.empty(len(indices), np.int64)
        for row, choices in enumerate(uniforms(sample_seeds(stream, indices), CHOICES)):
            draw = iter(choices.tolist())
            hard = next(draw)
            canvas, base = self._background(hard, draw)
            for _ in range(_pick(draw, 1 + _at(hard, DISTRACTORS))):
                self._distractor(hard, canvas, base, draw)
            labels[row] = self._character(hard, canvas, base, draw)
            np.clip(canvas, 0, 1, out=canvas)
            canvas *= np.float32(255)
            canvas += np.float32(0.5)
            images[row] = canvas
        return images, labels

    def _background(self, hard: float, draw: Iterator[float]) -> tuple[Colours, list[float]]:
        """A canvas (3, size, size) of values about 0 to 1, and its base colour (3)."""
        grey, tint, slope = _between(draw, 0.3, 0.6), _at(hard, TINT), _at(hard, SLOPE)
        base = [grey + _between(draw, -tint, tint) for _ in range(3)]
        slopes = np.array([_between(draw, -slope, slope) for _ in range(6)], np.float32).reshape(2, 3, 1, 1)
        canvas = np.array(base, np.float32)[:, None, None] + slopes[0] * self._across + slopes[1] * self._down
        for grain, strengths in enumerate(STRENGTHS):
            field = self._textures[grain, _pick(draw, FIELDS)]
            top, left = _pick(draw, self.size + 1), _pick(draw, self.size + 1)
            window = field[top : top + self.size, left : left + self.size]
            turn = _pick(draw, 8)
            window = window.T if turn & 1 else window
            window = window[:: -1 if turn & 2 else 1, :: -1 if turn & 4 else 1]
            strength = _at(hard, strengths)
            stains = np.array([strength * _between(draw, 0.5, 1.2) for _ in range(3)], np.float32)
            canvas += stains[:, None, None] * window
        return canvas, base

    def _character(self, hard: float, canvas: Colours, base: list[float], draw: Iterator[float]) -> int:
        """One whole character, inside the image; gives its class."""
        label = _pick(draw, len(CHARACTERS))
        height = min(max(int(_at(hard, HEIGHT) + _between(draw, -SPREAD, SPREAD)), 0), len(HEIGHTS) - 1)
        mask = self._glyphs.glyph(_pick(draw, len(FACES)), label, height, _pick(draw, len(ANGLES)))
        ways = (1 + _at(hard, REACH) * _between(draw, -1, 1) for _ in range(2))
        top, left = (int(way * (self.size - extent) / 2 + 0.5) for way, extent in zip(ways, mask.shape, strict=True))
        _paste(canvas, mask, top, left, _ink(hard, base, 1.0, draw))
        return label

    def _distractor(self, hard: float, canvas: Colours, base: list[float], draw: Iterator[float]) -> None:
        """A piece of a character or a plain shape, perhaps over the border of the image."""
        height = _pick(draw, len(HEIGHTS))
        if next(draw) < PIECES:
            character, face, angle = _pick(draw, len(CHARACTERS)), _pick(draw, len(FACES)), _pick(draw, len(ANGLES))
            mask = _piece(self._glyphs.glyph(face, character, height, angle), _pick(draw, 4), _between(draw, 0.35, 0.6))
        else:
            mask = self._glyphs.shape(_pick(draw, SHAPES), height, _pick(draw, TURNS))
        top = _pick(draw, self.size) - mask.shape[0] // 2
        left = _pick(draw, self.size) - mask.shape[1] // 2
        _paste(canvas, mask, top, left, _ink(hard, base, _between(draw, 0.4, 1.0), draw))


def _pick(draw: Iterator[float], count: float) -> int:
    return int(next(draw) * count)


def _at(hard: float, ends: tuple[float, float]) -> float:
    """The value at a difficulty."""
    return ends[0] + (ends[1] - ends[0]) * hard


def _between(draw: Iterator[float], low: float, high: float) -> float:
    return low + (high - low) * next(draw)


def _ink(hard: float, base: list[float], part: float, draw: Iterator[float]) -> Colours:
    """A colour lighter or darker than the base, by so much of the contrast that images of this difficulty have."""
    dark = next(draw) < _at(hard, DARK)
    way, hue = (-part if dark else part) * _at(hard, CONTRAST), _at(hard, HUE)
    return np.array([own + way * _between(draw, 1 - hue, 1 + hue) for own in base], np.float32)


def _piece(mask: Mask, border: int, share: float) -> Mask:
    """What is left of a mask when only its upper, left, lower or right part is kept."""
    length = max(1, int(share * mask.shape[border % 2]))
    part = slice(None, length) if border < 2 else slice(-length, None)
    return mask[part] if border % 2 == 0 else mask[:, part]


def _paste(canvas: Colours, mask: Mask, top: int, left: int, colour: Colours) -> None:
    """Lay a mask's ink on the canvas; what lies outside is cut off."""
    height, width = mask.shape
    size = canvas.shape[-1]
    upper, lower = max(top, 0), min(top + height, size)
    first, last = max(left, 0), min(left + width, size)
    ink = mask[upper - top : lower - top, first - left : last - left] * np.float32(1 / 255)
    region = canvas[:, upper:lower, first:last]
    region += ink * (colour[:, None, None] - region)
