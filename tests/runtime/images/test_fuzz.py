"""Mutated files of eight kinds: no exception but ours, no long wait, and no intact picture refused.

The oracle for intact is Pillow on the same file without its metadata. PHI3V_FUZZ=5000 tries more than the default.
"""

import io
import os
import random
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from phi3v.errors import ImageError
from phi3v.images.load import FORMATS, MAX_PIXELS, read_image
from phi3v.images.metadata import strip_metadata

COUNT = int(os.environ.get("PHI3V_FUZZ", "200"))
LONGEST_S = 2.0
SIZE = (48, 32)


def picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x011A], tags[0x0132] = 6, "Maker", 72.0, "2026:01:01 00:00:00"
    tags.get_ifd(0x8769)[0x829A] = 0.01
    return tags.tobytes()


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "hello " * 20)
    info.add_text("Long", "words " * 40, zip=True)
    info.add_itxt("Title", "grüße")
    return info


def save(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(1).save(buffer, kind, **options)
    return buffer.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: save("JPEG", exif=exif(), comment=b"a comment", dpi=(72, 72), icc_profile=b"icc" * 50),
    "progressive JPEG": lambda: save("JPEG", exif=exif(), progressive=True),
    "PNG": lambda: save("PNG", exif=exif(), pnginfo=text(), dpi=(72, 72), icc_profile=b"icc" * 50),
    "APNG": lambda: save("PNG", save_all=True, append_images=[picture(2)], exif=exif()),
    "WebP": lambda: save("WEBP", exif=exif(), icc_profile=b"icc" * 50),
    "GIF": lambda: save("GIF", comment=b"a comment", save_all=True, append_images=[picture(2)]),
    "BMP": lambda: save("BMP"),
    "TIFF": lambda: save("TIFF", exif=exif()),
}


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Change a few bytes, put some in, or take some out; more often near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(min(len(changed), dice.choice((64, 512, len(changed)))))
        kind = dice.randrange(10)
        if kind < 7:
            changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 7:
            changed[at:at] = dice.randbytes(dice.randrange(1, 5))
        elif kind == 8:
            del changed[at : at + dice.randrange(1, 5)]
        else:
            del changed[at:]
        if not changed:
            return b""
    return bytes(changed)


def is_intact(data: bytes) -> bool:
    """Whether Pillow decodes the pixels of a file whose metadata is dropped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(strip_metadata(data).data), formats=FORMATS) as image:
                image.load()
                image.convert("RGB")
                return image.width * image.height <= MAX_PIXELS
    except Exception:
        return False
    return True


@pytest.mark.parametrize("kind", FILES)
def test_a_mutated_file_is_read_or_refused_and_an_intact_one_is_read(kind: str) -> None:
    data, dice = FILES[kind](), random.Random(kind)
    assert is_intact(data)
    for number in range(max(1, COUNT // len(FILES))):
        mutated = mutate(data, dice)
        began = time.perf_counter()
        try:
            read_image(mutated)
            read = True
        except ImageError:
            read = False
        assert time.perf_counter() - began < LONGEST_S, (kind, number)
        assert read or not is_intact(mutated), (kind, number)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])  # Pillow takes a TIFF's own tags from the block
def test_a_mutated_block_of_exif_costs_no_picture(kind: str) -> None:
    block, dice = exif(), random.Random(f"exif {kind}")
    options = {"lossless": True} if kind == "WebP" else {}
    for number in range(max(1, COUNT // 4)):
        mutated = mutate(block, dice)
        buffer = io.BytesIO()
        try:
            picture(1).save(buffer, kind.upper(), exif=mutated, **options)
        except Exception:  # Pillow reads some blocks before it writes them
            continue
        found = read_image(buffer.getvalue()).image
        assert sorted(found.size) == sorted(SIZE), number
