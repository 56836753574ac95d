"""What is done to training images. Everything is off unless it is asked for, and what a data set cannot do is refused.

Imports nothing heavy: it is part of configurations.
"""

from __future__ import annotations

from pydantic import Field

from nas.core.config import Strict
from nas.core.errors import InputError

MIXING = frozenset({"mixup", "cutmix", "mix_probability", "switch_probability"})  # any data can do them
MOVING = frozenset({"shift", "rotate", "zoom"})


class Augment(Strict):
    """Random changes of images, and mixtures of pairs of them; numbers are limits of uniform draws unless said."""

    shift: float = Field(default=0.0, ge=0, le=0.5)  # of the side, either way, both directions; borders are continued
    rotate: float = Field(default=0.0, ge=0, le=180)  # degrees, either way
    zoom: float = Field(default=0.0, ge=0, le=0.9)  # larger or smaller by up to this part
    flip: float = Field(default=0.0, ge=0, le=1)  # probability of left for right
    crop: float = Field(default=1.0, gt=0, le=1)  # least share of the area in timm's random resized crop
    color_jitter: float = Field(default=0.0, ge=0, le=1)  # of timm, idle beside rand_augment
    rand_augment: str = Field(default="", pattern=r"^(rand(-[a-z]+[0-9a-z.]*)*)?$")  # timm's: rand-m9-mstd0.5-inc1
    erase: float = Field(default=0.0, ge=0, le=1)  # probability that a rectangle becomes noise (timm's random erasing)
    mixup: float = Field(default=0.0, ge=0)  # alpha of the beta distribution; 0 is none
    cutmix: float = Field(default=0.0, ge=0)  # the same
    mix_probability: float = Field(default=1.0, ge=0, le=1)  # that a batch is mixed at all
    switch_probability: float = Field(default=0.5, ge=0, le=1)  # of cutmix where both are on

    @property
    def active(self) -> frozenset[str]:
        """The names of what is not as it is by default."""
        fields = type(self).model_fields
        return frozenset(name for name, field in fields.items() if getattr(self, name) != field.default)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def per_image(self) -> bool:
        """Whether single images are changed."""
        return bool(self.active - MIXING)

    def check(self, able: frozenset[str], name: str) -> None:
        """InputError if something is on that the data cannot do."""
        for wrong in sorted(self.active - able - MIXING):
            raise InputError("this data cannot be augmented so", wrong, name, sorted(able | MIXING))
