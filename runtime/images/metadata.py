"""Takes an image file's metadata off before a decoder sees it, so that odd metadata cannot cost intact pixels.

Kept are the parts that say what the pixels are. Of the rest, the orientation and the number of frames are read, and
what cannot be read there counts as upright and as one.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .tiff import DAMAGED, MAGIC, TiffLayout

_ORIENTATION = 0x0112
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}
"""EXIF's types BYTE, SHORT and LONG, as struct reads them."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS",)
"""Besides the critical chunks, whose names begin with a capital."""

_JPEG_JFIF, _JPEG_ADOBE, _JPEG_COMMENT, _JPEG_SCAN, _JPEG_END = 0xE0, 0xEE, 0xFE, 0xDA, 0xD9
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""

_TIFF_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332}
    | {338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
"""What TIFF 6.0 and its supplements need to decode a page: sizes, strips, tiles, compression, colours, orientation."""

_MOST_PROFILE_BYTES = 1 << 20
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])")


@dataclass(frozen=True, slots=True)
class PixelFile:
    """An image file without its metadata.

    `orientation`: EXIF's 1 to 8; None where the file's format keeps it with the pixels. `frames`: how many it holds;
    None where only decoding tells. `sample_bits`: of a PNG; `significant_bits`: what its sBIT chunk states of them.
    """

    data: bytes
    orientation: int | None = None
    frames: int | None = None
    sample_bits: int | None = None
    significant_bits: int | None = None


def strip_metadata(data: bytes) -> PixelFile:
    """Take the metadata off a JPEG, PNG or TIFF; another file, or one whose structure is damaged, stays as it is."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _strip_jpeg(data)
        if data.startswith(_PNG):
            return _strip_png(data)
        if data.startswith(MAGIC):
            return _strip_tiff(data)
    except DAMAGED:
        pass
    return PixelFile(data)


def _strip_jpeg(data: bytes) -> PixelFile:
    kept, taken = [data[:2]], list[bytes]()
    for marker, segment in _list_segments(data):
        metadata = marker == _JPEG_COMMENT or (0xE0 <= marker <= 0xEF and not _names_colours(marker, segment))
        (taken if metadata else kept).append(segment)
    exif = next((segment[4:] for segment in taken if segment[4:10] == b"Exif\0\0"), b"")
    return PixelFile(b"".join(kept), _read_orientation(exif, taken), frames=1)


def _list_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A JPEG's markers with their segments. The last is everything from the first scan, or from damage, on."""
    at = 2
    while data[at] == 0xFF:
        begin = at
        while data[at] == 0xFF:  # any number may stand in front of a marker
            at += 1
        marker, at = data[at], at + 1
        if marker in (_JPEG_SCAN, _JPEG_END):
            yield marker, data[begin:]
            return
        if marker not in _JPEG_BARE:
            (length,) = struct.unpack_from(">H", data, at)
            if length < 2 or at + length > len(data):
                yield _JPEG_SCAN, data[begin:]
                return
            at += length
        yield marker, data[begin:at].lstrip(b"\xff").rjust(at - begin, b"\xff")
    yield _JPEG_SCAN, data[at:]


def _names_colours(marker: int, segment: bytes) -> bool:
    """Whether an application's segment tells how the colours are stored: JFIF's and Adobe's do."""
    jfif = marker == _JPEG_JFIF and segment[4:9] == b"JFIF\0" and len(segment) >= 18
    return jfif or (marker == _JPEG_ADOBE and segment[4:9] == b"Adobe" and len(segment) >= 16)


def _strip_png(data: bytes) -> PixelFile:
    kept, taken, at = [_PNG], dict[bytes, list[bytes]](), len(_PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        if name[:1].isupper() or name in _PNG_KEPT or end > len(data):
            kept.append(data[at:end])
        else:
            taken.setdefault(name, []).append(data[at + 8 : end - 4])
        at = end
        if name == b"IEND":
            break
    (exif,) = taken.get(b"eXIf", [b""])[:1]
    exif = exif or next(map(_raw_profile, taken.get(b"zTXt", [])), b"")
    animation = taken.get(b"acTL", [b""])[0]
    frames = struct.unpack_from(">I", animation)[0] if len(animation) >= 4 else 1
    bits = min(taken.get(b"sBIT", [b""])[0], default=0) or None
    return PixelFile(b"".join(kept), _read_orientation(exif, taken.get(b"iTXt", [])), frames, data[24], bits)


def _raw_profile(chunk: bytes) -> bytes:
    """The EXIF block in a chunk of text, as ImageMagick has written it; else nothing."""
    keyword, _, body = chunk.partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return b""
    try:
        lines = zlib.decompressobj().decompress(body[1:], _MOST_PROFILE_BYTES).split(b"\n", 3)
        return bytes.fromhex(lines[3].decode("ascii")).removeprefix(b"Exif\0\0")
    except (zlib.error, ValueError, IndexError):
        return b""


def _strip_tiff(data: bytes) -> PixelFile:
    """Give the first page a directory of its own at the end, without the tags that are metadata."""
    layout = TiffLayout.of(data)
    pages = layout.directories(data)
    tags = [data[at : at + layout.entry] for at in pages[0]] if pages else []
    kept = [tag for tag in tags if struct.unpack_from(f"{layout.order}H", tag)[0] in _TIFF_PIXEL_TAGS]
    padding = b"\0" * (len(data) % 2)
    start = struct.pack(layout.offset, len(data) + len(padding))
    body = struct.pack(layout.count, len(kept)) + b"".join(kept) + struct.pack(layout.offset, 0)
    whole = data[: layout.header] + start + data[layout.header + len(start) :] + padding + body
    return PixelFile(whole, frames=len(pages))


def _read_orientation(exif: bytes, others: list[bytes]) -> int:
    """The orientation in an EXIF block, or in XMP among the other blocks; 1 where none can be read."""
    found = read_orientation(exif)
    if found is None:
        match = next(filter(None, map(_XMP_ORIENTATION.search, others)), None)
        found = int(match[1]) if match else None
    return found or 1


def read_orientation(exif: bytes) -> int | None:
    """EXIF's orientation, 1 to 8, whatever the other tags are; None where there is none, or it cannot be read."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (number,) = struct.unpack_from(f"{order}H", block, directory)
        for at in range(directory + 2, directory + 2 + 12 * number, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, at)
            if tag == _ORIENTATION and kind in _WHOLE_NUMBERS:
                (value,) = struct.unpack_from(f"{order}{_WHOLE_NUMBERS[kind]}", block, at + 8)
                return int(value) if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None
