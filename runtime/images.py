"""Anything a caller holds -> a safe RGB picture. Nothing undecoded ever leaves this file.

Pillow decodes, from a closed list of formats, after the header has passed the size limits.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import urllib.parse
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError, ImageNotFoundError
from .fetch import fetch_url

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any] | BinaryIO
"""A path, the bytes of a file, a PIL image, a uint8 array [H, W(, 3|4)], an http(s) or `data:` URL, a binary file."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow decoders that are allowed ("JPEG" covers the MPO of many cameras). No others: some start programs."""

MAX_FILE_BYTES = 100 << 20
MAX_PIXELS = 100_000_000

_ALLOWED = "JPEG, PNG, WebP, GIF, BMP or TIFF"


def load_image(source: ImageSource) -> Image.Image:
    """Decode, verify, rotate by EXIF and convert to RGB; the first frame of an animation, alpha dropped.

    Raises ImageError or its leaves, naming the file and the remedy. The result shares no memory with `source`.
    """
    if isinstance(source, Image.Image):
        _check_size(source.size, "the PIL image")
        return _to_rgb(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array")
    data, name = _read(source)
    return _decode(data, name)


def _read(source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO) -> tuple[bytes, str]:
    """The bytes behind a source, and what to call it in a message."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_bytes(len(source), "the picture's bytes")
        return bytes(source), "the picture's bytes"
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_data_url(source), _shorten(source)
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        return fetch_url(source, MAX_FILE_BYTES), source
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source)), str(source)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        try:
            data = source.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as exc:
            raise ImageError(f"{name} cannot be read ({exc}); open it with mode 'rb'") from exc
        if not isinstance(data, bytes):
            raise ImageError(f"{name} reads text, not bytes; open it with mode 'rb'")
        _check_bytes(len(data), name)
        return data, name
    raise ImageError(
        f"a picture is a path, URL, bytes, PIL image, uint8 array or binary file, not {type(source).__name__}"
    )


def _from_path(path: Path) -> bytes:
    try:
        # Opening a pipe would wait for a writer; O_NONBLOCK does not, and changes nothing for a file.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as exc:
        raise ImageNotFoundError(f"{path}: no such file; check the path") from exc
    except (OSError, ValueError) as exc:
        raise ImageNotFoundError(f"{path}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ImageError(f"{path} is {kind}; name one picture file, or - for standard input")
        _check_bytes(status.st_size, str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _from_data_url(url: str) -> bytes:
    header, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{_shorten(url)}: no comma; a data: URL reads data:image/png;base64,....")
    _check_bytes(len(body) * 3 // 4, _shorten(url))
    raw = urllib.parse.unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error as exc:
        raise ImageError(f"{_shorten(url)}: the base64 is damaged ({exc})") from exc


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    good_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not good_shape or not array.size:
        raise ImageError(
            f"the array is {array.dtype} {list(array.shape)}; allowed: uint8 [H, W], [H, W, 3] or [H, W, 4], "
            "values 0 to 255"
        )
    _check_size((array.shape[1], array.shape[0]), "the array")
    return Image.fromarray(np.ascontiguousarray(array))


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty; give a {_ALLOWED} picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oversize and damaged metadata are judged here, not by Pillow's warnings
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.size, name)
                picture.load()
                return _to_rgb(picture, name)
        except ImageError:
            raise
        except UnidentifiedImageError as exc:
            raise ImageError(f"{name} is not a {_ALLOWED} picture, or is damaged from its first bytes on") from exc
        except Image.DecompressionBombError as exc:
            raise ImageError(f"{name} is too large ({exc}); allowed: {MAX_PIXELS // 10**6} megapixels") from exc
        except Exception as exc:  # decoders raise whatever damage makes them raise
            raise ImageError(f"{name} is damaged or cut short ({exc}); save it again as PNG or JPEG") from exc


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Upright RGB pixels, a copy. 16-bit greys keep their upper 8 bits, where a plain convert would clip them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about transparency that convert drops on purpose
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("I;16", "I;16L", "I;16B", "I"):
                deep = np.asarray(upright).astype(np.int64)
                shift = 8 if deep.max(initial=0) > 255 else 0
                upright = Image.fromarray(np.clip(deep >> shift, 0, 255).astype(np.uint8))
            return upright.copy() if upright.mode == "RGB" else upright.convert("RGB")
    except Exception as exc:
        raise ImageError(f"{name} cannot be converted to RGB ({exc}); save it again as PNG or JPEG") from exc


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name} has {size >> 20} MiB; allowed: {MAX_FILE_BYTES >> 20} MiB. Save it smaller")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS or not width * height:
        raise ImageError(
            f"{name} has {width} x {height} pixels; allowed: 1 pixel to {MAX_PIXELS // 10**6} megapixels. "
            "Scale it down: the model sees at most 5376 pixels of a side"
        )


def _shorten(url: str) -> str:
    return url if len(url) <= 48 else f"{url[:40]}... ({len(url)} characters)"
