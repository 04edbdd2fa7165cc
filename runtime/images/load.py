"""From anything a caller holds to a safe RGB image. No undecoded image leaves this file.

Pillow decodes, from a closed list of formats, after the header has passed the size limits.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from .source import ByteSource, is_http, read_source

ImageSource = ByteSource | Image.Image | npt.NDArray[Any]
"""A path, the bytes of a file, a PIL image, a uint8 array [H, W(, 3|4)], an http(s) or `data:` URL, a binary file."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The Pillow decoders that are allowed ("JPEG" covers the MPO of many cameras). Some of the others start programs."""

MAX_PIXELS = 100_000_000

_ALLOWED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}".replace("WEBP", "WebP")

# The header of a JPEG scan: its length follows from its 1 to 4 components, so random bytes do not look like one.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MAX_SCANS, _MAX_SCANNED_PIXELS = 100, 20 * MAX_PIXELS
"""Encoders write about ten scans. Each scan of a progressive JPEG costs a pass over all pixels, and takes 20 bytes in a
hostile file."""

_WARNINGS = threading.RLock()
"""`warnings.catch_warnings` swaps the process's filters; two threads inside it at once would leave the wrong ones."""


def load_image(source: ImageSource) -> Image.Image:
    """Decode, verify, rotate by EXIF and convert to RGB; the first frame of an animation, alpha dropped.

    Raises ImageError or its subclasses, naming the file and the remedy. The result shares no memory with `source`.
    """
    if isinstance(source, Image.Image):
        _check_size(source.size, "the PIL image")
        return _to_rgb(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array")
    data, name = read_source(source)
    with _open_image(data, name) as image:
        image.load()
        return _to_rgb(image, name)


def check_image(source: ByteSource) -> None:
    """Refuse a file that is missing, too large or not an image, by its first bytes; nothing is decoded or fetched.

    Raises ImageError or its subclasses.
    """
    if not (isinstance(source, str) and is_http(source)):
        with _open_image(*read_source(source)):
            pass


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    good_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not good_shape or not array.size:
        raise ImageError(
            f"the array is {array.dtype} {list(array.shape)}; allowed: uint8 [H, W], [H, W, 3] or [H, W, 4], "
            "values 0 to 255"
        )
    _check_size((array.shape[1], array.shape[0]), "the array")
    return Image.fromarray(np.ascontiguousarray(array))


@contextmanager
def _open_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open the image in a file's bytes: read its header, check its size, and map what decoding raises to ImageError."""
    if not data:
        raise ImageError(f"{name} is empty; give a {_ALLOWED} image")
    with _ignore_warnings():  # oversize and damaged metadata are judged here, not by Pillow's warnings
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, name)
                _check_scans(image, data, name)
                yield image
        except ImageError:
            raise
        except UnidentifiedImageError as exc:
            raise ImageError(f"{name} is not a {_ALLOWED} image, or is damaged from its first bytes on") from exc
        except Image.DecompressionBombError as exc:
            raise ImageError(f"{name} is too large ({exc}); allowed: {MAX_PIXELS // 10**6} megapixels") from exc
        except Exception as exc:  # decoders raise whatever damage makes them raise
            raise ImageError(f"{name} is damaged or cut short ({exc}); save it again as PNG or JPEG") from exc


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Upright RGB pixels, a copy. 16-bit greys keep their upper 8 bits; convert() alone would clip them."""
    try:
        with _ignore_warnings():  # Pillow warns about transparency that convert drops on purpose
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I;16", "I;16L", "I;16B", "I"):
                upright = _upper_bits(np.asarray(upright))
            return upright.copy() if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as exc:
        raise ImageError(f"{name} cannot be converted to RGB ({exc}); save it again as PNG or JPEG") from exc


def _upper_bits(deep: npt.NDArray[Any]) -> Image.Image:
    """Convert 16- or 32-bit greys to 8 bits, strip by strip: a whole copy of 100 megapixels would take gigabytes."""
    shift = 8 if deep.max(initial=0) > 255 else 0
    grey = np.empty(deep.shape, dtype=np.uint8)
    for top in range(0, len(deep), 256):
        grey[top : top + 256] = np.clip(deep[top : top + 256] >> shift, 0, 255)
    return Image.fromarray(grey)


def _check_scans(image: Image.Image, data: bytes, name: str) -> None:
    if image.format not in ("JPEG", "MPO"):
        return
    allowed = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // (image.width * image.height))
    scans = sum(1 for _ in _SCAN.finditer(data))
    if scans > allowed:
        raise ImageError(f"{name} is a JPEG of {scans} scans; allowed: {allowed} at its size. Save it again")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS or not width * height:
        raise ImageError(
            f"{name} has {width} x {height} pixels; allowed: 1 pixel to {MAX_PIXELS // 10**6} megapixels. "
            "Scale it down: the model sees at most 5376 pixels of a side"
        )
