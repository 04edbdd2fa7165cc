"""How many crops an image is cut into, when one image is to have other detail than the rest."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import OptionError

NumCrops = int | Literal["auto"]
"""The most sub-crops an image is cut into; "auto": the fewest that keep its own resolution, up to 16."""

MAX_CROPS = 16
"""The most sub-crops the reference processor is ever run with."""


@dataclass(frozen=True, slots=True)
class CroppedImage:
    """An image (`image`, from any source) with its own `num_crops`, in place of the request's.

    Raises OptionError for a number out of range.
    """

    image: Any
    num_crops: NumCrops

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_crops", read_crops(self.num_crops))


def read_crops(given: Any) -> NumCrops:
    """A number of crops, checked. Raises OptionError."""
    if isinstance(given, str) and given == "auto":
        return "auto"
    try:
        crops = operator.index(given)
    except TypeError:
        crops = 0
    if not 1 <= crops <= MAX_CROPS:
        raise OptionError(f"num_crops is {given!r}; allowed: 1 to {MAX_CROPS}, or 'auto'")
    return crops


def crops_of(image: object, default: NumCrops) -> NumCrops:
    """An image's own number of crops, else the default."""
    return image.num_crops if isinstance(image, CroppedImage) else default
