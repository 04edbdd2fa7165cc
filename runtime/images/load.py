"""From anything a caller holds to a safe RGB image. No undecoded image leaves this file.

Pillow decodes, from a closed list of formats, after the metadata was taken off (metadata.py) and the header has passed
the size limits.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, MissingDependencyError, OptionError
from .background import DEFAULT_BACKGROUND, parse_background
from .convert import to_rgb
from .cropped import CroppedImage
from .formats import FORMATS, allowed_formats
from .kind import describe_kind
from .metadata import PixelFile, read_orientation, strip_metadata
from .source import ByteSource, is_http, read_source

ImageSource = ByteSource | Image.Image | npt.NDArray[Any] | CroppedImage
"""A path, the bytes of a file, a PIL image, a uint8 array [H, W(, 3|4)], an http(s) or `data:` URL, a binary file; or
one of these with its own number of crops.
"""

MAX_PIXELS = 100_000_000
_ORIENTATION = 0x0112
_ON_ITS_SIDE = range(5, 9)
"""The orientations of EXIF that exchange width and height."""

_ALLOWED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}".replace("WEBP", "WebP")

# The header of a JPEG scan: its length follows from its 1 to 4 components, so random bytes do not look like one.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MAX_SCANS, _MAX_SCANNED_PIXELS = 100, 20 * MAX_PIXELS
"""Encoders write about ten scans. Each scan of a progressive JPEG costs a pass over all pixels, and takes 20 bytes in a
hostile file."""

_WARNINGS = threading.RLock()
"""`warnings.catch_warnings` swaps the process's filters; two threads inside it at once would leave the wrong ones."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """`image`: upright RGB pixels that share no memory with their source.

    `how`: what was done to them beyond decoding, "" for nothing. `notes`: what a person should know, each a sentence
    that begins with the image's name: what was not read, what cannot be seen.
    """

    image: Image.Image
    how: str = ""
    notes: tuple[str, ...] = ()


def load_image(source: ImageSource, background: str = DEFAULT_BACKGROUND) -> Image.Image:
    """Only the pixels of `read_image`."""
    return read_image(source, background).image


def read_image(source: ImageSource, background: str = DEFAULT_BACKGROUND) -> LoadedImage:
    """Decode, verify, turn upright by EXIF and convert to RGB; the first page or frame of several.

    `background`: the colour behind transparent pixels, a name or "#rrggbb" as of Pillow's ImageColor; "drop" drops the
    alpha channel as the reference does, which shows what it hid. Raises OptionError for another, ImageError or its
    subclasses for the image, naming the file and the remedy.
    """
    colour = parse_background(background)
    while isinstance(source, CroppedImage):
        source = source.image
    if isinstance(source, Image.Image):
        _check_size(source.size, "the PIL image")
        return _finish(source, "the PIL image", colour, PixelFile(b""))
    if isinstance(source, np.ndarray):
        return _finish(_from_array(source), "the array", colour, PixelFile(b""))
    data, name = read_source(source)
    file = strip_metadata(data)
    with _open_image(file.data, name) as image:
        image.load()
        return _finish(image, name, colour, file)


def check_image(source: ByteSource) -> None:
    """Refuse a file that is missing, too large or not an image, by its first bytes; nothing is decoded or fetched.

    Raises ImageError or its subclasses.
    """
    if not (isinstance(source, str) and is_http(source)):
        image_size(source)


def image_size(source: ByteSource) -> tuple[int, int]:
    """Width and height of an image as it is shown, upright, from its header. Raises ImageError or its subclasses."""
    data, name = read_source(source)
    file = strip_metadata(data)
    with _open_image(file.data, name) as image:
        turned = (file.orientation or _find_orientation(image)) in _ON_ITS_SIDE
        return (image.height, image.width) if turned else image.size


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
    # Oversize and damaged metadata are judged here, not by Pillow's warnings.
    with _name_failures(name, "is damaged or cut short"), _ignore_warnings():
        try:
            with Image.open(io.BytesIO(data), formats=allowed_formats(data, name)) as image:
                _check_size(image.size, name)
                _check_scans(image, data, name)
                yield image
        except UnidentifiedImageError as exc:
            raise ImageError(_describe_foreign(data, name)) from exc
        except Image.DecompressionBombError as exc:
            raise ImageError(f"{name} is too large ({exc}); allowed: {MAX_PIXELS // 10**6} megapixels") from exc


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _finish(image: Image.Image, name: str, background: tuple[int, int, int] | None, file: PixelFile) -> LoadedImage:
    """Convert a decoded image, and say what is not obvious about it."""
    with _name_failures(name, "cannot be converted to RGB"), _ignore_warnings():
        orientation = file.orientation or _find_orientation(image)
        found = to_rgb(
            image,
            name,
            orientation=orientation,
            background=background,
            sample_bits=file.sample_bits,
            significant_bits=file.significant_bits,
        )
    notes = [*_describe_rest(image, file), *([found.warning] if found.warning else [])]
    return LoadedImage(found.image, found.how, tuple(f"{name}: {note}" for note in notes))


def _find_orientation(image: Image.Image) -> int:
    """That of a format whose metadata was not taken off, or of a caller's own image; 1 where none can be read."""
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return read_orientation(block) or 1
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # damage makes Pillow raise whatever it likes
        return 1
    return value if isinstance(value, int) else 1


def _describe_rest(image: Image.Image, file: PixelFile) -> Iterator[str]:
    """Say that a file holds more than the one image that is read."""
    if file.frames is not None and file.frames > 1:
        if image.format == "TIFF":
            yield f"page 1 of {file.frames} is read, and no other; #page=2 behind the name reads the second"
        else:
            yield f"frame 1 of {file.frames} is read, and no other"
    elif file.data and file.frames is None and _is_animated(image):
        yield "it is an animation, of which the first frame is read, and no other"


def _is_animated(image: Image.Image) -> bool:
    """Whether a second frame follows; damage behind the first one, which is all that is read, counts as its end."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage makes Pillow raise whatever it likes
        return False


@contextmanager
def _name_failures(name: str, what: str) -> Iterator[None]:
    """Decoders raise whatever damage makes them raise: an ImageError that names the image."""
    try:
        yield
    except (ImageError, MissingDependencyError, OptionError):
        raise
    except MemoryError as exc:
        raise ImageError(f"{name} needs more memory than there is; scale it down, or free some memory") from exc
    except Exception as exc:
        raise ImageError(f"{name} {what} ({exc}); save it again as PNG or JPEG") from exc


def _describe_foreign(data: bytes, name: str) -> str:
    """Say what a file is that no allowed decoder takes."""
    kind = describe_kind(data)
    if kind:
        return f"{name} is {kind}; allowed: {_ALLOWED} images"
    return f"{name} is not a {_ALLOWED} image, or is damaged from its first bytes on"


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
