"""Metadata never costs an intact picture: odd EXIF, huge text chunks, broken profiles, private tags."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from phi3v.images.load import load_image, read_image
from phi3v.images.metadata import strip_metadata

PIXELS = np.random.default_rng(3).integers(0, 256, (20, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
TURNED_RIGHT = 6
"""EXIF's orientation of a picture that must be turned a quarter to the right."""


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def in_jpeg(*segments: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)
    )


def in_png(*chunks: bytes) -> bytes:
    data = saved("PNG")
    after_header = 8 + 25
    return data[:after_header] + b"".join(chunks) + data[after_header:]


def tiff_block(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A block of EXIF with entries (tag, type, count, the four bytes of value or offset)."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0\0\0\0"


ORIENTED = (0x0112, 3, 1, struct.pack("<HH", TURNED_RIGHT, 0))
ODD_BLOCKS = {
    "empty": b"",
    "no header": b"garbage",
    "a tag as text": tiff_block((0x0100, 2, 4, b"640\0"), ORIENTED),
    "an offset behind the end": tiff_block((0x011A, 5, 1, b"\xff\xff\xff\x7f"), ORIENTED),
    "an unknown type": tiff_block((0x011A, 99, 1, b"\0\0\0\0"), ORIENTED),
    "four billion values": tiff_block((0x8298, 2, 0xFFFFFFFF, b"\x10\0\0\0"), ORIENTED),
    "a directory of itself": tiff_block((0x8769, 4, 1, b"\x08\0\0\0"), ORIENTED),
    "an orientation as text": tiff_block((0x0112, 2, 4, b"six\0")),
    "an orientation of 77": tiff_block((0x0112, 3, 1, b"\x4d\0\0\0")),
    "cut short": tiff_block(ORIENTED)[:14],
}


@pytest.mark.parametrize("block", ODD_BLOCKS.values(), ids=ODD_BLOCKS.keys())
def test_odd_exif_costs_no_jpeg_and_no_png(block: bytes) -> None:
    expected = sorted(PICTURE.size)
    assert sorted(load_image(in_jpeg(segment(0xE1, b"Exif\0\0" + block))).size) == expected
    assert sorted(load_image(in_png(chunk(b"eXIf", block))).size) == expected


@pytest.mark.parametrize("name", [n for n, block in ODD_BLOCKS.items() if block.endswith(ORIENTED[3] + b"\0" * 4)])
def test_the_orientation_is_read_beside_odd_tags(name: str) -> None:
    assert load_image(in_jpeg(segment(0xE1, b"Exif\0\0" + ODD_BLOCKS[name]))).size == (20, 40)


def orientations() -> Iterator[tuple[int, Image.Transpose | None]]:
    yield 1, None
    names = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    yield from ((number, Image.Transpose[name]) for number, name in enumerate(names, start=2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("number", "turn"), list(orientations()))
def test_every_orientation_is_undone(kind: str, number: int, turn: Image.Transpose | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    options = {"lossless": True} if kind == "WEBP" else {}
    found = np.asarray(load_image(saved(kind, exif=exif.tobytes(), **options)))
    assert np.array_equal(found, np.asarray(PICTURE if turn is None else PICTURE.transpose(turn)))


def test_an_orientation_that_only_xmp_states_is_undone() -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert load_image(in_jpeg(segment(0xE1, xmp))).size == (20, 40)


def test_the_exif_that_imagemagick_hides_in_text_is_read() -> None:
    block = (b"Exif\0\0" + tiff_block(ORIENTED)).hex().encode()
    text = b"\nexif\n" + str(len(block) // 2).rjust(8).encode() + b"\n" + block
    assert load_image(in_png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))).size == (20, 40)


BIG = b"x" * (3 << 20)
CHUNKS = {
    "3 MB of text": chunk(b"tEXt", b"Comment\0" + BIG),
    "3 MB of compressed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(BIG)),
    "a bomb of text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * (80 << 20))),
    "damaged compressed text": chunk(b"zTXt", b"Comment\0\0not zlib"),
    "a huge colour profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(BIG)),
    "a damaged colour profile": chunk(b"iCCP", b"icc\0\0damaged"),
    "a wrong checksum of text": chunk(b"tEXt", b"a\0b", crc=0),
    "an unknown chunk": chunk(b"prIv", b"anything"),
    "a broken palette of size": chunk(b"pHYs", b"1"),
    "a date that is none": chunk(b"tIME", b""),
}


@pytest.mark.parametrize("extra", CHUNKS.values(), ids=CHUNKS.keys())
def test_no_chunk_of_metadata_costs_a_png(extra: bytes) -> None:
    assert np.array_equal(np.asarray(load_image(in_png(extra))), PIXELS)


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE])
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"Exif\0\0", b"MPF\0II*\0\xff\xff", b"Adobe", b"JFIF\0", b"ICC_PROFILE\0\1"]
)
def test_no_segment_of_metadata_costs_a_jpeg(marker: int, body: bytes) -> None:
    found = np.asarray(load_image(in_jpeg(segment(marker, body))))
    assert np.array_equal(found, np.asarray(load_image(saved("JPEG"))))


def test_the_colours_of_a_cmyk_jpeg_still_go_by_its_adobe_segment() -> None:
    buffer = io.BytesIO()
    PICTURE.convert("CMYK").save(buffer, "JPEG", quality=100)
    data = buffer.getvalue()
    assert np.array_equal(np.asarray(load_image(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_odd_tags_cost_no_tiff() -> None:
    tags = Image.Exif()
    tags[0x0131] = "a program"
    tags[0x010E] = "a description " * 500
    data = bytearray(saved("TIFF", exif=tags.tobytes()))
    for name in (b"a program", b"a description"):
        at = data.index(name)
        data[at : at + 4] = b"\xff\xfe\xfd\xfc"
    assert np.array_equal(np.asarray(load_image(bytes(data))), PIXELS)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "tiff_ccitt"])
def test_a_tiff_without_its_metadata_has_the_same_pixels(compression: str) -> None:
    picture = PICTURE.convert("1") if compression == "tiff_ccitt" else PICTURE
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression=compression)
    data = buffer.getvalue()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert strip_metadata(data).data != data
    assert np.array_equal(np.asarray(load_image(data)), expected)


def saved_frames(kind: str, count: int) -> bytes:
    frames = [Image.new("RGB", (30, 20), (40 * number, 0, 0)) for number in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("TIFF", "page 1 of 3 is read, and no other; #page=2 behind the name reads the second"),
        ("PNG", "frame 1 of 3 is read, and no other"),
        ("GIF", "it is an animation, of which the first frame is read, and no other"),
        ("WEBP", "it is an animation, of which the first frame is read, and no other"),
    ],
)
def test_the_first_of_several_pictures_is_read_and_said_to_be(kind: str, note: str) -> None:
    assert read_image(saved_frames(kind, 3)).notes == (f"the image: {note}",)
    assert read_image(saved_frames(kind, 1)).notes == ()


def test_pages_that_lead_in_a_circle_are_counted_once() -> None:
    data = bytearray(saved_frames("TIFF", 2))
    first = struct.unpack_from("<I", data, 4)[0]
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    assert read_image(bytes(data)).notes == ()


def test_text_that_pillow_wrote_is_taken_off() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "hello")
    info.add_itxt("Title", "grüße")
    assert strip_metadata(saved("PNG", pnginfo=info)).data == strip_metadata(saved("PNG")).data
