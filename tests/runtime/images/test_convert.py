"""One rule from samples to pixels: the range that the file states, floats by their largest value, white paper."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from phi3v.errors import ImageError, OptionError
from phi3v.images.load import load_image, read_image

DARK = "the whole image is darker than an eighth of the range that it states"
GREY16 = np.linspace(0, 65535, 64 * 4).reshape(4, 64).astype(np.uint16)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_sbit(png: bytes, *bits: int) -> bytes:
    body = b"sBIT" + bytes(bits)
    return png[:33] + struct.pack(">I", len(bits)) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def greys(data: bytes | Image.Image) -> npt.NDArray[np.uint8]:
    found = np.asarray(load_image(data))
    assert (found == found[:, :, :1]).all()
    return found[:, :, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_upper_8(kind: str) -> None:
    assert np.array_equal(greys(saved(Image.fromarray(GREY16), kind)), GREY16 >> 8)


def test_small_values_in_16_bits_stay_dark_and_are_said_to_be() -> None:
    found = read_image(saved(Image.fromarray(GREY16 >> 4), "PNG"))
    assert np.asarray(found.image).max() == 15
    assert found.how == "grey 0 to 65535 as 8 bits"
    (note,) = found.notes
    assert note.startswith(f"the image: {DARK} (0 to 65535)")


def test_a_png_that_states_12_significant_bits_in_the_lower_ones_is_read_by_them() -> None:
    found = read_image(with_sbit(saved(Image.fromarray(GREY16 >> 4), "PNG"), 12))
    assert np.array_equal(np.asarray(found.image)[:, :, 0], GREY16 >> 8)
    assert (found.how, found.notes) == ("grey 0 to 4095 as 8 bits", ())


def test_a_png_whose_12_bits_lie_in_the_upper_ones_is_not_brightened() -> None:
    dark = (GREY16 >> 12 << 4).astype(np.uint16)  # the lower four are zero, as PNG wants them for 12 bits
    assert greys(with_sbit(saved(Image.fromarray(dark), "PNG"), 12)).max() == 0


@pytest.mark.parametrize(("least", "most"), [(None, 4095), (0, 1023), (100, 1123)])
def test_a_tiffs_stated_range_is_used(least: int | None, most: int) -> None:
    low, span = least or 0, most - (least or 0) + 1
    values = np.linspace(low, most, 256).reshape(4, 64).astype(np.uint16)
    stated = {341: most} | ({340: least} if least is not None else {})
    expected = (values.astype(int) - low) * 256 // span
    assert np.array_equal(greys(saved(Image.fromarray(values), "TIFF", tiffinfo=stated)), expected)


def test_values_outside_the_stated_range_end_at_black_and_white() -> None:
    values = np.array([[0, 99, 100, 1123, 1124, 65535]], dtype=np.uint16)
    data = saved(Image.fromarray(values), "TIFF", tiffinfo={340: 100, 341: 1123})
    assert greys(data).tolist() == [[0, 0, 0, 255, 255, 255]]


def test_signed_samples_without_a_range_are_refused_below_zero() -> None:
    values = np.array([[-5, 7]], dtype=np.int32)
    with pytest.raises(ImageError, match=r"samples below zero \(-5\)"):
        load_image(saved(Image.fromarray(values, "I"), "TIFF"))


def test_zero_stands_for_white_where_the_file_says_so() -> None:
    data = saved(Image.fromarray(GREY16), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(greys(data), 255 - (GREY16 >> 8))


@pytest.mark.parametrize(("high", "how"), [(1.0, "0 to 1"), (255.0, "0 to 255"), (65535.0, "0 to 65535")])
def test_floats_are_read_by_their_largest_value(high: float, how: str) -> None:
    values = np.linspace(0, high, 256, dtype=np.float32).reshape(4, 64)
    found = read_image(saved(Image.fromarray(values), "TIFF"))
    assert np.array_equal(np.asarray(found.image)[:, :, 0].ravel(), np.arange(256))
    assert found.how == f"floats {how} as 8 bits"


def test_floats_that_resampling_has_pushed_over_the_edge_end_at_black_and_white() -> None:
    found = read_image(saved(Image.fromarray(np.array([[-0.02, 0.5, 1.025]], dtype=np.float32)), "TIFF"))
    assert np.asarray(found.image)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.0, 75000.0], "floats from 0 to 75000"),
        ([-1.0, 1.0], "floats from -1 to 1"),
        ([0.0, float("nan")], "no numbers"),
        ([0.0, float("inf")], "no numbers"),
    ],
)
def test_floats_of_no_known_range_are_refused(values: list[float], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(saved(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))


def test_16_bit_colours_that_are_all_dark_are_said_to_be() -> None:
    row = struct.pack(">6H", 4095, 0, 100, 0, 4095, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    found = read_image(data)
    assert found.how == "16-bit samples as 8 bits"
    assert DARK in found.notes[0]


def drawn_on_glass(mode: str = "RGBA") -> Image.Image:
    """Black on transparent black, a half transparent dot, one opaque dot."""
    picture = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    picture.putpixel((2, 0), (200, 100, 0, 128))
    return picture.convert(mode)


def test_transparency_is_put_on_white() -> None:
    found = read_image(saved(drawn_on_glass(), "PNG"))
    assert np.asarray(found.image)[0].tolist() == [[255] * 3, [0] * 3, [227, 177, 127], [255] * 3]
    assert found.how == "transparency on rgb(255, 255, 255)"


def test_the_background_is_whoever_asks_to_choose() -> None:
    assert np.asarray(load_image(saved(drawn_on_glass(), "PNG"), "#102030"))[0, 0].tolist() == [16, 32, 48]
    assert np.asarray(load_image(drawn_on_glass(), "black"))[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_drop_shows_what_transparency_hides_as_the_reference_does(mode: str) -> None:
    picture = drawn_on_glass(mode)
    assert np.array_equal(np.asarray(load_image(picture, "drop")), np.asarray(picture.convert("RGB")))


def test_every_kind_of_transparency_is_seen() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 50, 60, 70])
    palette.putpixel((1, 0), 1)
    colour = Image.new("RGB", (2, 1), (9, 9, 9))
    colour.putpixel((1, 0), (50, 60, 70))
    deep = Image.fromarray(np.array([[500, 60000]], dtype=np.uint16))
    for picture, hidden in ((palette, 0), (colour, (9, 9, 9)), (colour.convert("L"), 9), (deep, 500)):
        data = saved(picture, "PNG", transparency=hidden)
        first, second = np.asarray(load_image(data))[0].tolist()
        assert first == [255] * 3
        assert second != [255] * 3
    assert np.asarray(load_image(saved(palette, "GIF", transparency=0)))[0, 0].tolist() == [255] * 3


def test_an_image_of_nothing_is_said_to_be_transparent() -> None:
    assert read_image(Image.new("RGBA", (4, 4))).notes == ("the PIL image: the whole image is transparent",)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_opaque_images_are_what_convert_makes_of_them(mode: str) -> None:
    noise = Image.effect_noise((30, 20), 90).convert("RGBA")
    picture = noise.convert("LA").convert(mode) if mode == "PA" else noise.convert(mode)
    assert np.array_equal(np.asarray(load_image(picture)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("background", ["", "no colour", "#12", 3, None])
def test_a_background_that_is_no_colour_is_refused(background: object) -> None:
    with pytest.raises(OptionError, match=r"allowed: a colour such as white or #ffcc00, or drop"):
        load_image(drawn_on_glass(), background)  # type: ignore[arg-type]
