"""Masks of letters, figures and plain shapes, drawn once and kept: the fonts are those that matplotlib ships.

Fonts: DejaVu (https://dejavu-fonts.github.io), STIX (https://www.stixfonts.org) and Computer Modern (Knuth; the BaKoMa
outlines). A mask is an array (height, width) of uint8, 255 where the ink is full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nas.core.errors import InputError

Mask = NDArray[np.uint8]

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FACES = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
    *(f"{name}.ttf" for name in ("cmr10", "cmb10", "cmss10", "cmtt10")),
)
HEIGHTS = (0.17, 0.22, 0.28, 0.36, 0.46)  # of a capital letter, in sides of the image
ANGLES = (-15, -10, -5, 0, 5, 10, 15)  # degrees
SHAPES = 5
TURNS = 12  # of a shape, in steps of 15 degrees
FINER = 2  # drawn so many times larger, then averaged
PROBE = 100  # pixels at which a font is measured


class Glyphs:
    """Masks for images of one size. Those that were drawn are kept: at most 25,200 glyphs, about 20 MB at 64 pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: dict[tuple[int, ...], Mask] = {}
        self._upright: dict[tuple[int, int, int], Image.Image] = {}

    def glyph(self, face: int, character: int, height: int, angle: int) -> Mask:
        """A character, by places in the lists above."""
        key = (face, character, height, angle)
        if key not in self._kept:
            upright = key[:3]
            if upright not in self._upright:
                pixels = FINER * self.size * HEIGHTS[height]
                self._upright[upright] = _character(FACES[face], CHARACTERS[character], pixels)
            self._kept[key] = _finished(self._upright[upright], ANGLES[angle])
        return self._kept[key]

    def shape(self, kind: int, height: int, turn: int) -> Mask:
        """A bar, disc, frame, wedge or arc, as large as the glyphs are."""
        key = (kind, height, turn)
        if key not in self._kept:
            drawn = _shape(kind, round(FINER * self.size * HEIGHTS[height]))
            self._kept[key] = _finished(drawn, turn * 180 / TURNS)
        return self._kept[key]

    def fingerprint(self) -> bytes:
        """Changes with a font's file, and with how the characters come out when they are drawn here."""
        digest = hashlib.sha256()
        for face, name in enumerate(FACES):
            digest.update(_file(name).read_bytes())
            for character in range(len(CHARACTERS)):
                digest.update(self.glyph(face, character, len(HEIGHTS) // 2, 0).tobytes())
        return digest.digest()


def _file(name: str) -> Path:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    if not path.is_file():
        raise InputError("a font that matplotlib ships is missing", place=str(path))
    return path


@cache
def _font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_file(name)), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def _capital(name: str) -> float:
    """The height of a capital letter, in font sizes."""
    _, top, _, bottom = _font(name, PROBE).getbbox("H")
    return (bottom - top) / PROBE


def _character(name: str, character: str, pixels: float) -> Image.Image:
    font = _font(name, round(pixels / _capital(name)))
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), character, fill=255, font=font)
    return canvas


def _shape(kind: int, side: int) -> Image.Image:
    canvas = Image.new("L", (side, side))
    draw, end, line = ImageDraw.Draw(canvas), side - 1, max(2, side // 6)
    ways: tuple[Callable[[], None], ...] = (
        lambda: draw.rectangle((0, side // 3, end, end - side // 3), fill=255),  # thicker than an I
        lambda: draw.ellipse((0, side // 6, end, end - side // 6), fill=255),
        lambda: draw.rectangle((0, side // 5, end, end - side // 5), outline=255, width=line),
        lambda: draw.line((0, 0, end, side // 3, 0, end), fill=255, width=line),
        lambda: draw.arc((0, 0, end, end), 0, 150, fill=255, width=line),
    )
    ways[kind]()
    return canvas


def _finished(drawn: Image.Image, angle: float) -> Mask:
    """Turned, cut to its ink, and averaged down."""
    turned = drawn.rotate(angle, resample=Image.Resampling.BILINEAR, expand=True) if angle else drawn
    return np.asarray(turned.crop(turned.getbbox()).reduce(FINER))
