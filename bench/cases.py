"""What is measured: an image, a number of crops, a number of new tokens. The image is the same on every machine."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OptionError
from ..images.cropped import MAX_CROPS
from ..images.load import MAX_PIXELS

PROMPT = "Could you please introduce this stock to me?"
"""The question of every case. What it costs depends on the image."""

_FORM = re.compile(r"(\d{1,9})x(\d{1,9}):(\d{1,9}):(\d{1,9})")
_MAX_SIDE = 65_500
"""libjpeg writes no wider or higher image."""


@dataclass(frozen=True, slots=True)
class Case:
    """A JPEG of `width` x `height` pixels, cut into at most `num_crops` crops, and an answer of `new_tokens` tokens."""

    width: int
    height: int
    num_crops: int
    new_tokens: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Parse `WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS`. Raises OptionError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise OptionError(
                f"case {text!r} is not understood; give WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS, such as 1344x1344:16:64"
            )
        width, height, num_crops, new_tokens = map(int, match.groups())
        fits = min(width, height) >= 1 and max(width, height) <= _MAX_SIDE and width * height <= MAX_PIXELS
        if not (fits and 1 <= num_crops <= MAX_CROPS and new_tokens >= 2):
            raise OptionError(
                f"case {text!r} cannot be measured; allowed: sides from 1 to {_MAX_SIDE} and {MAX_PIXELS // 10**6} "
                f"megapixels, 1 to {MAX_CROPS} crops, 2 or more new tokens, such as 1344x1344:16:64"
            )
        return cls(width, height, num_crops, new_tokens)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.num_crops}:{self.new_tokens}"

    def write_image(self, folder: Path) -> Path:
        """Write the case's image to a JPEG file in `folder`."""
        path = folder / f"{self.width}x{self.height}.jpg"
        path.write_bytes(make_jpeg(self.width, self.height))
        return path


def make_jpeg(width: int, height: int, seed: int = 336) -> bytes:
    """Draw smooth colours, edges and fine noise from a seed, as a JPEG that costs as much as a photograph.

    Decoding and resizing take the time they take for a photograph of the same size.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / (17 + 9 * c)) + np.cos(y / (23 - 5 * c)) + ((x // 64 + y // 48) % 2) for c in range(3)]
    noise = rng.normal(0.0, 0.15, (height, width, 1)).astype(np.float32)
    pixels = np.clip((np.stack(waves, axis=-1) + noise) * 50 + 110, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
