"""What tests of pictures share: pixels of a PNG, texts of an SVG and of a PDF."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np

_ESCAPES = {b"n": b"\n", b"r": b"\r"}


def pixels(data: bytes) -> np.ndarray:
    """A PNG as red, green, blue from 0 to 1."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(data), format="png"))[..., :3]


def coloured(image: np.ndarray, hexadecimal: str) -> int:
    """How many pixels have about this colour."""
    wanted = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=-1) < 0.04).sum())


def svg_texts(data: bytes) -> list[str]:
    """The texts of an SVG, which is parsed as XML."""
    root = ET.fromstring(data)
    return ["".join(found.itertext()).strip() for found in root.iter("{http://www.w3.org/2000/svg}text")]


def pdf_text(data: bytes) -> str:
    """All characters that a PDF shows, in order; spaces and what else is between its texts may be missing.

    A string of a page is two bytes a glyph; the font's ToUnicode map says which characters that is.
    """
    streams = []
    for found in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            streams.append(zlib.decompress(found[1]))
        except zlib.error:
            streams.append(found[1])
    meaning = {}
    for start, texts in re.findall(rb"<([0-9a-f]+)> <[0-9a-f]+> \[(.*?)\]", b"".join(streams)):
        for step, text in enumerate(re.findall(rb"<([0-9a-f]*)>", texts)):
            meaning[int(start, 16) + step] = bytes.fromhex(text.decode()).decode("utf-16be")
    shown = []
    for stream in (own for own in streams if b"] TJ" in own):
        for literal in re.findall(rb"\(((?:\\.|[^\\()])*)\)", stream, re.DOTALL):
            raw = re.sub(rb"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), literal, flags=re.DOTALL)
            shown += [meaning[int.from_bytes(raw[i : i + 2], "big")] for i in range(0, len(raw), 2)]
    return "".join(shown)
