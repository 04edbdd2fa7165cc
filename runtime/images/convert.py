"""From a decoded image in any of Pillow's modes to upright RGB, by one rule that the documentation states.

Integers of more than 8 bits keep the upper 8 of the range that the file states, and are never stretched beyond it.
Floats are read as 0..1, else 0..255, else 0..65535, by their largest value. Transparency is put on a background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError

_STRIP = 256
"""Rows that are converted at a time: a float copy of 100 megapixels would take gigabytes."""

_DARK = 256 // 8
_FLOAT_RANGES = (1, 255, 65535)
_OVERSHOOT = 0.1
"""The share of a range by which floats may leave it at either end: resampling makes them."""

# Pillow's TIFF tags: bits and format of a sample, its stated range, and what zero stands for.
_BITS, _FORMAT, _LEAST, _MOST, _PHOTOMETRIC = 258, 339, 340, 341, 262
_SIGNED, _ZERO_IS_WHITE = 2, 0

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what undoes it."""


@dataclass(frozen=True, slots=True)
class Converted:
    """`image`: RGB. `how`: what was done, "" where nothing had to be. `warning`: what a person should know of it."""

    image: Image.Image
    how: str = ""
    warning: str = ""


def to_rgb(
    image: Image.Image,
    name: str,
    *,
    orientation: int,
    background: tuple[int, int, int] | None,
    sample_bits: int | None = None,
    significant_bits: int | None = None,
) -> Converted:
    """Convert; the result shares no memory with `image`.

    `background` None drops transparency. `sample_bits` and `significant_bits` as of a `PixelFile`. Raises ImageError
    for floats that fit none of the ranges, and for integers below zero in a file that states no range.
    """
    if image.mode == "F":
        found = _from_floats(image, name)
    elif image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        found = _from_integers(image, name, background, significant_bits)
    else:
        found = _from_bytes(image, background, sample_bits or _tag(image, _BITS) or 8)
    if orientation in _UPRIGHT:
        turned = found.image.transpose(_UPRIGHT[orientation])
        found = Converted(turned, "; ".join(filter(None, (found.how, "turned upright"))), found.warning)
    return found


def _from_bytes(image: Image.Image, background: tuple[int, int, int] | None, sample_bits: float) -> Converted:
    """8 bits a sample or fewer, and 16-bit colours, of which Pillow keeps the upper 8."""
    how = f"{sample_bits:.0f}-bit samples as 8 bits" if sample_bits > 8 else ""
    if background is not None and image.has_transparency_data and image.format != "BMP":  # a BMP's alpha is often unset
        layered = image.convert("RGBA")
        alpha = layered.getchannel("A")
        least, most = cast("tuple[int, int]", alpha.getextrema())
        if least < 255:
            flat = Image.new("RGB", image.size, background)
            flat.paste(layered.convert("RGB"), mask=alpha)
            shown = f"transparency on rgb{background}"
            return Converted(
                flat, f"{how}; {shown}" if how else shown, "" if most else "the whole image is transparent"
            )
    rgb = image.copy() if image.mode == "RGB" else image.convert("RGB")
    brightest = max(most for _, most in rgb.getextrema()) if how else _DARK  # type: ignore[misc]
    return Converted(rgb, how, _describe_darkness(int(brightest), f"{sample_bits:.0f} bits"))


def _from_integers(
    image: Image.Image, name: str, background: tuple[int, int, int] | None, bits: int | None
) -> Converted:
    deep, low, high = _stated_range(image, name, bits)
    span = high - low + 1
    if low == 0 and span % 256 == 0 and span & (span - 1) == 0:
        shift = span.bit_length() - 9  # a power of two, as nearly always: no wider copy is needed
        grey = _map_strips(deep, lambda strip: np.minimum(strip, high) >> shift)
    else:
        grey = _map_strips(deep, lambda strip: (strip.astype(np.int64) - low) * 256 // span)
    if _tag(image, _PHOTOMETRIC) == _ZERO_IS_WHITE:
        grey = np.uint8(255) - grey
    how, warning = f"grey {low} to {high} as 8 bits", _describe_darkness(int(grey.max()), f"{low} to {high}")
    hidden = image.info.get("transparency")
    if background is not None and isinstance(hidden, int) and (deep == hidden).any():
        rgb = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
        rgb[deep == hidden] = background
        return Converted(Image.fromarray(rgb), f"{how}; transparency on rgb{background}", warning)
    return Converted(Image.fromarray(grey).convert("RGB"), how, warning)


def _stated_range(image: Image.Image, name: str, bits: int | None) -> tuple[npt.NDArray[np.integer], int, int]:
    """The samples, and the least and greatest that the file says there may be."""
    deep: npt.NDArray[np.integer] = np.asarray(image)
    stated = int(_tag(image, _BITS) or (16 if image.mode != "I" or image.format == "PNG" else 32))
    ours = image.format is None  # made by a caller's own code
    signed = _tag(image, _FORMAT) == _SIGNED or (ours and image.mode == "I")
    if image.mode == "I" and stated == 32 and not signed:
        deep = deep.view(np.uint32)
    least, most = _tag(image, _LEAST), _tag(image, _MOST)
    if most is not None and most > (least or 0):
        return deep, int(least or 0), int(most)
    if signed:
        if int(deep.min()) < 0:
            raise ImageError(
                f"{name} holds samples below zero ({int(deep.min())}) and states no range for them; save it as 8 or 16 "
                "bits without a sign"
            )
        return deep, 0, 2**16 - 1 if ours and int(deep.max()) < 2**16 else 2 ** (stated - 1) - 1
    if bits is not None and bits < stated and int(deep.max()) < 2**bits and (deep % 2 ** (stated - bits)).any():
        stated = bits  # the samples lie in the lower bits: PNG wants them in the upper ones, and writers differ
    return deep, 0, 2**stated - 1


def _from_floats(image: Image.Image, name: str) -> Converted:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds samples that are no numbers (NaN or infinite); save it as PNG")
    least, most = float(values.min()), float(values.max())
    high = next((high for high in _FLOAT_RANGES if most <= (1 + _OVERSHOOT) * high), None)
    if high is None or least < -_OVERSHOOT * high:
        raise ImageError(
            f"{name} holds floats from {least:g} to {most:g}; allowed: 0 to 1, 0 to 255 or 0 to 65535. Scale them, or "
            "save it as PNG"
        )
    grey = _map_strips(values, lambda strip: np.rint(strip.astype(np.float64) * (255 / high)))
    if _tag(image, _PHOTOMETRIC) == _ZERO_IS_WHITE:
        grey = np.uint8(255) - grey
    warning = _describe_darkness(int(grey.max()), f"0 to {high}")
    return Converted(Image.fromarray(grey).convert("RGB"), f"floats 0 to {high} as 8 bits", warning)


def _map_strips(
    values: npt.NDArray[np.generic], convert: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]
) -> npt.NDArray[np.uint8]:
    """Convert to 0..255 strip by strip."""
    grey = np.empty(values.shape, dtype=np.uint8)
    for top in range(0, len(values), _STRIP):
        grey[top : top + _STRIP] = np.clip(convert(values[top : top + _STRIP]), 0, 255)
    return grey


def _describe_darkness(brightest: int, stated: str) -> str:
    if brightest >= _DARK:
        return ""
    return (
        f"the whole image is darker than an eighth of the range that it states ({stated}); if it should be brighter, "
        "save it as 8 bits"
    )


def _tag(image: Image.Image, tag: int) -> float | None:
    """The first value of a TIFF's tag; None where there is none, or it is not a number."""
    value = getattr(image, "tag_v2", {}).get(tag)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, (int, float)) else None
