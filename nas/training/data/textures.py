"""A store of textures to cut backgrounds from: noise of three grains, some of it drawn out, and strokes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nas.training.data.randomness import derived, sample_seeds, uniforms

FIELDS = 12  # of each grain
GRAINS = ((2, 4), (6, 14), (20, 60))  # cells over the side of an image: coarse, middle, fine
STROKED = 3  # every so many-th field of the middle grain is of strokes
STROKES = 160
MOST = 2 * GRAINS[-1][1]  # cells over the side of a field


def textures(seed: int, size: int) -> NDArray[np.float32]:
    """Fields (grain, FIELDS, 2 size, 2 size) of values about -1 to 1; an image takes a window of one of each grain."""
    made = np.empty((len(GRAINS), FIELDS, 2 * size, 2 * size), np.float32)
    for grain, (low, high) in enumerate(GRAINS):
        for number in range(FIELDS):
            own = derived(seed, "texture", grain, number)
            draws = uniforms(sample_seeds(own, np.arange(2)), max(MOST * MOST, 4 * STROKES))
            if grain == 1 and number % STROKED == 0:
                made[grain, number] = _strokes(draws[1], 2 * size)
                continue
            across, down = (round(2 * (low + (high - low) * part)) for part in draws[0, :2])
            cells = 2 * draws[1, : across * down].reshape(down, across) - 1
            grid = Image.fromarray(cells.astype(np.float32))
            made[grain, number] = np.asarray(grid.resize((2 * size, 2 * size), Image.Resampling.BICUBIC))
    return made


def _strokes(draws: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Short straight strokes, lighter and darker than the ground, everywhere."""
    canvas = Image.new("L", (2 * side, 2 * side), 128)
    draw = ImageDraw.Draw(canvas)
    for x, y, turn, tone in draws[: 4 * STROKES].reshape(STROKES, 4).tolist():
        at, reach = (x * 2 * side, y * 2 * side), side / 4 * (0.3 + tone % 0.25 * 2)
        to = (at[0] + reach * (2 * turn - 1), at[1] + reach * (1 - abs(2 * turn - 1)))
        draw.line((*at, *to), fill=int(255 * tone), width=max(1, side // 40))
    return np.asarray(canvas.reduce(2), dtype=np.float32) / np.float32(127.5) - np.float32(1)
