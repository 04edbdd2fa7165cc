"""Facts about phi3v.images and phi3v.fetch: what decodes to which pixels, and what is refused in which words."""

from __future__ import annotations

import base64
import http.server
import io
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from phi3v import hd, images
from phi3v.errors import ImageError, ImageFetchError, ImageNotFoundError, Phi3VError
from phi3v.fetch import fetch_url
from phi3v.images import load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
Pixels = npt.NDArray[np.int64]


def quadrants(width: int = 32, height: int = 16) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = Image.new("RGB", (width, height), WHITE)
    picture.paste(RED, (0, 0, width // 2, height // 2))
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    return picture


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    """An 8-bit grey PNG written by hand, so that its header may claim anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def pixels_of(picture: Image.Image) -> Pixels:
    return np.asarray(picture).astype(np.int64)


def assert_same(picture: Image.Image, wanted: Image.Image, tolerance: int = 0) -> None:
    assert picture.mode == "RGB"
    assert picture.size == wanted.size
    assert int(np.abs(pixels_of(picture) - pixels_of(wanted)).max()) <= tolerance


def corners(picture: Image.Image) -> list[list[int]]:
    """The middle pixel of each quadrant, row by row."""
    grid = pixels_of(picture)
    rows, columns = grid.shape[:2]
    return [list(grid[y, x]) for y in (rows // 4, 3 * rows // 4) for x in (columns // 4, 3 * columns // 4)]


def assert_near(picture: Image.Image, colours: list[tuple[int, int, int]], tolerance: int) -> None:
    assert picture.mode == "RGB"
    assert np.abs(np.array(corners(picture)) - np.array(colours)).max() <= tolerance


def refused(source: Any, leaf: type[Phi3VError] = ImageError) -> str:
    """The message of the error that `source` gets; its class is exactly `leaf`."""
    with pytest.raises(Phi3VError) as caught:
        load_image(source)
    assert type(caught.value) is leaf
    return str(caught.value)


# Formats


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_decode_to_the_same_pixels(kind: str, options: dict[str, Any]) -> None:
    assert_same(load_image(encode(quadrants(), kind, **options)), quadrants())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_decode_to_nearly_the_same_pixels(kind: str) -> None:
    assert_near(load_image(encode(quadrants(), kind, quality=95)), [RED, GREEN, BLUE, WHITE], 6)


def test_cmyk_jpeg_decodes_to_rgb() -> None:
    data = encode(quadrants().convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "CMYK"
    assert_near(load_image(data), [RED, GREEN, BLUE, WHITE], 8)


def test_grey_jpeg_decodes_to_equal_channels() -> None:
    data = encode(Image.new("L", (16, 16), 90), "JPEG")
    assert_same(load_image(data), Image.new("RGB", (16, 16), (90, 90, 90)), 1)


def test_exif_orientation_6_turns_a_jpeg_clockwise() -> None:
    picture = load_image(encode(quadrants(), "JPEG", quality=95, exif=orientation(6)))
    assert picture.size == (16, 32)
    assert_near(picture, [BLUE, RED, WHITE, GREEN], 6)


def test_a_turned_picture_is_not_turned_again() -> None:
    once = load_image(encode(quadrants(), "JPEG", quality=95, exif=orientation(6)))
    assert_same(load_image(once), once)


@pytest.mark.parametrize("value", range(1, 9))
def test_every_exif_orientation_gives_the_upright_picture(value: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants().transpose(undo[value]) if value in undo else quadrants()
    assert_same(load_image(encode(stored, "PNG", exif=orientation(value))), quadrants())


def test_palette_png_decodes_to_its_colours() -> None:
    data = encode(quadrants().quantize(4), "PNG")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "P"
    assert_same(load_image(data), quadrants())


def test_palette_png_with_transparency_loses_it_without_a_warning() -> None:
    data = encode(quadrants().quantize(4), "PNG", transparency=bytes([0, 128, 255, 255]))
    assert_same(load_image(data), quadrants())


def test_rgba_png_loses_its_alpha_and_keeps_its_colours() -> None:
    picture = quadrants()
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    assert_same(load_image(encode(picture, "PNG")), quadrants())


def test_16_bit_grey_png_keeps_its_upper_bits() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    data = encode(Image.fromarray(ramp), "PNG")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode.startswith("I")
    wanted = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert_same(load_image(data), Image.fromarray(wanted).convert("RGB"))


def test_exif_orientation_turns_a_16_bit_grey_png() -> None:
    ramp = (np.arange(128, dtype=np.uint16) * 514).reshape(8, 16)
    picture = load_image(encode(Image.fromarray(ramp), "PNG", exif=orientation(6)))
    wanted = Image.fromarray(np.ascontiguousarray(np.rot90((ramp >> 8).astype(np.uint8), -1))).convert("RGB")
    assert_same(picture, wanted)


def test_one_bit_png_decodes_to_black_and_white() -> None:
    picture = load_image(encode(Image.new("1", (4, 4), 1), "PNG"))
    assert_same(picture, Image.new("RGB", (4, 4), WHITE))


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_same(load_image(data), frames[0])


def test_a_format_off_the_list_is_refused() -> None:
    message = refused(encode(quadrants(), "PPM"))
    assert "the picture's bytes is not a JPEG, PNG, WebP, GIF, BMP or TIFF" in message


# Sources


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_load(kind: Callable[[bytes], Any]) -> None:
    assert_same(load_image(kind(encode(quadrants(), "PNG"))), quadrants())


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_loads(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    path = tmp_path / "ä picture with spaces"
    path.write_bytes(encode(quadrants(), "PNG"))
    assert_same(load_image(kind(path)), quadrants())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "LA", "1"])
def test_a_pil_image_of_any_mode_loads(mode: str) -> None:
    white = Image.new("RGB", (6, 4), WHITE)
    assert_same(load_image(white.convert(mode)), white)


def test_a_pil_palette_image_with_transparency_loads_without_a_warning() -> None:
    picture = quadrants().quantize(4)
    picture.info["transparency"] = bytes([0, 128, 255, 255])
    assert_same(load_image(picture), quadrants())


def test_a_pil_image_that_is_not_loaded_yet_loads(tmp_path: Path) -> None:
    path = tmp_path / "lazy.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    with Image.open(path) as lazy:
        assert_same(load_image(lazy), quadrants())


def test_a_truncated_pil_image_is_refused() -> None:
    data = encode(noise(), "PNG")
    with Image.open(io.BytesIO(data[: len(data) // 2])) as lazy:
        assert "the PIL image" in refused(lazy)


def test_an_empty_pil_image_is_refused() -> None:
    assert "the PIL image has 0 x 5 pixels" in refused(Image.new("RGB", (0, 5)))


def test_the_result_shares_no_memory_with_a_pil_image() -> None:
    source = quadrants()
    picture = load_image(source)
    source.paste(GREEN, (0, 0, *source.size))
    assert_same(picture, quadrants())


def test_the_result_shares_no_memory_with_an_array() -> None:
    source = np.array(quadrants())
    picture = load_image(source)
    source[:] = 7
    assert_same(picture, quadrants())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_uint8_array_loads(mode: str) -> None:
    picture = quadrants().convert(mode)
    assert_same(load_image(np.array(picture)), picture.convert("RGB"))


def test_an_array_that_is_not_contiguous_loads() -> None:
    array = np.array(quadrants())[::-1, ::2]
    assert np.array_equal(pixels_of(load_image(array)), array)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "bool", "int8", "object"])
def test_an_array_of_another_dtype_is_refused(dtype: str) -> None:
    message = refused(np.zeros((4, 4, 3), dtype=dtype))
    assert f"the array is {dtype} [4, 4, 3]" in message
    assert "uint8 [H, W]" in message


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 1), (4, 4, 2), (4, 4, 5), (3, 4, 5), (1, 4, 4, 3), (0, 4, 3)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert f"the array is uint8 {list(shape)}" in refused(np.zeros(shape, dtype=np.uint8))


def test_an_array_above_the_pixel_limit_is_refused() -> None:
    huge = np.broadcast_to(np.uint8(0), (10_001, 10_000))
    assert "the array has 10000 x 10001 pixels; allowed: 1 pixel to 100 megapixels" in refused(huge)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:image/png;BASE64,", "data:;base64,"])
def test_a_base64_data_url_loads(head: str) -> None:
    url = head + base64.b64encode(encode(quadrants(), "PNG")).decode()
    assert_same(load_image(url), quadrants())


def test_a_percent_encoded_data_url_loads() -> None:
    body = "".join(f"%{byte:02x}" for byte in encode(quadrants(), "PNG"))
    assert_same(load_image(f"data:image/png,{body}"), quadrants())


@pytest.mark.parametrize("body", ["iVBORw0KG!goAAAA", "iVBORw0KGgo", "äöü="])
def test_a_data_url_with_damaged_base64_is_refused(body: str) -> None:
    message = refused(f"data:image/png;base64,{body}")
    assert f"data:image/png;base64,{body}: the base64 is damaged" in message


def test_a_data_url_without_comma_is_refused() -> None:
    assert refused("data:image/png;base64").startswith("data:image/png;base64: no comma")


def test_a_data_url_without_body_is_refused() -> None:
    assert "data:image/png;base64, is empty" in refused("data:image/png;base64,")


def test_a_long_data_url_is_shortened_in_the_message() -> None:
    message = refused("data:image/png;base64," + "A" * 100_000)
    assert message.startswith("data:image/png;base64,AAAA")
    assert "(100022 characters)" in message
    assert len(message) < 300


def test_a_binary_file_object_loads(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    with path.open("rb") as file:
        assert_same(load_image(file), quadrants())
    assert_same(load_image(io.BytesIO(path.read_bytes())), quadrants())


def test_a_damaged_binary_file_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(b"not a picture")
    with path.open("rb") as file:
        assert str(path) in refused(file)


def test_a_text_file_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        assert "mode 'rb'" in refused(file)
    assert "mode 'rb'" in refused(io.StringIO("hello"))


def test_a_picture_opened_as_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode(quadrants(), "PNG"))
    with path.open(encoding="utf-8") as file:
        assert "mode 'rb'" in refused(file)


def test_a_file_object_that_fails_to_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "write-only.png"
    with path.open("wb") as file:
        assert str(path) in refused(file)


@pytest.mark.parametrize("source", [None, 7, 1.5, ["a.png"]])
def test_anything_else_is_refused(source: object) -> None:
    assert f"not {type(source).__name__}" in refused(source)


# Hostile files


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    assert f"{path} is empty" in refused(path)
    assert "the picture's bytes is empty" in refused(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = encode(noise(), kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    message = refused(path)
    assert str(path) in message
    assert "damaged" in message


def test_a_png_cut_at_any_byte_loads_or_is_refused() -> None:
    data = encode(noise(8, 8), "PNG")
    for end in range(1, len(data) - 12):
        assert "the picture's bytes" in refused(data[:end])


def test_a_picture_with_a_flipped_byte_never_raises_another_error() -> None:
    chance = random.Random(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encode(noise(16, 16), kind)
        for _ in range(60):
            damaged = bytearray(data)
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            try:
                picture = load_image(damaged)
            except ImageError as exc:
                assert "the picture's bytes" in str(exc)  # noqa: PT017 - either outcome is right
            else:
                assert picture.mode == "RGB"


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "random.jpg"
    path.write_bytes(random.Random(0).randbytes(10_000))
    assert f"{path} is not a JPEG, PNG" in refused(path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("this is no picture\n" * 50, encoding="utf-8")
    assert f"{path} is not a JPEG, PNG" in refused(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing.png"
    assert f"{path}: no such file" in refused(path, ImageNotFoundError)
    assert f"{path}: no such file" in refused(str(path), ImageNotFoundError)


def test_a_missing_file_is_also_the_builtin_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.png")


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "http:picture.png", "ftp://127.0.0.1/picture.png"])
def test_a_path_that_cannot_be_opened_is_refused(path: str) -> None:
    assert refused(path, ImageNotFoundError).startswith(str(Path(path)))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert str(tmp_path) in message
    assert "folder" in message


def test_a_refused_directory_leaves_no_file_open(tmp_path: Path) -> None:
    before = os.open(os.devnull, os.O_RDONLY)
    os.close(before)
    for _ in range(3):
        with pytest.raises((Phi3VError, OSError)):
            load_image(tmp_path)
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    messages: list[str] = []
    thread = threading.Thread(target=lambda: messages.append(refused(path)), daemon=True)
    thread.start()
    thread.join(2)
    assert not thread.is_alive()
    assert messages[0].startswith(f"{path} is no regular file")


def test_a_device_without_end_is_refused() -> None:
    assert "/dev/zero is no regular file" in refused("/dev/zero")


def test_a_sparse_file_above_the_byte_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + (1 << 20))
    assert f"{path} has 101 MiB; allowed: 100 MiB" in refused(path)


@pytest.mark.parametrize("size", [(20_000, 10_000), (10_001, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_above_the_pixel_limit_is_refused_fast(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "claims.png"
    path.write_bytes(png(*size, zlib.compress(bytes(1000))))
    start = time.monotonic()
    message = refused(path)
    assert time.monotonic() - start < 2
    assert str(path) in message
    assert "100 megapixels" in message


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(bytes(1 << 20)) for _ in range(101)) + packer.flush()
    path.write_bytes(png(10_000, 10_100, pixels))
    assert path.stat().st_size < 1 << 20
    start = time.monotonic()
    message = refused(path)
    assert time.monotonic() - start < 0.5
    assert f"{path} has 10000 x 10100 pixels" in message


def test_a_small_header_over_a_zip_bomb_gives_the_small_picture() -> None:
    picture = load_image(png(2, 2, zlib.compress(bytes(20 << 20))))
    assert_same(picture, Image.new("RGB", (2, 2)))


@pytest.mark.parametrize("num_crops", [1, 16])
@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000)])
def test_a_picture_of_extreme_shape_loads_and_transforms(size: tuple[int, int], num_crops: int) -> None:
    picture = load_image(encode(Image.new("RGB", size, RED), "PNG"))
    assert picture.size == size
    image = hd.transform(picture, num_crops)
    assert image.crops.shape == (image.plan.crops, 3, 336, 336)
    assert 2 <= image.plan.crops <= num_crops + 1
    assert bool(np.isfinite(image.crops).all())


# URLs


class Handler(http.server.BaseHTTPRequestHandler):
    """One path for each thing a server can do to a client."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        server = cast("Server", self.server)
        server.seen.append(self.path)
        body = server.bodies.get(self.path)
        if body is not None:
            self.reply(200, body)
        elif self.path in server.redirects:
            self.reply(302, b"", location=server.redirects[self.path])
        elif self.path == "/cut":
            self.reply(200, encode(noise(), "PNG")[:100], length=5000)
        elif self.path == "/cut-chunked":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nabc")
        elif self.path == "/no-length":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + encode(quadrants(), "PNG"))
        elif self.path == "/nonsense":
            self.wfile.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
        elif self.path == "/stalled":
            server.released.wait(5)
        elif self.path == "/stalled-body":
            self.reply(200, b"\x89PNG", length=5000)
            self.wfile.flush()
            server.released.wait(5)
        elif self.path == "/drip":
            self.drip(server)
        else:
            self.reply(404, b"nothing here")

    def reply(self, code: int, body: bytes, *, length: int | None = None, location: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, server: Server) -> None:
        """A byte every 50 ms: no single read is slow, all of them together are."""
        try:
            self.reply(200, b"", length=5000)
            while not server.released.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            pass  # the client has gone, as it should

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A loopback server that records the paths it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.released = threading.Event()
        self.seen: list[str] = []
        self.bodies = {
            "/good.png": encode(quadrants(), "PNG"),
            "/page.html": b"<html><body>Please log in</body></html>",
            "/empty": b"",
            "/big": bytes(300_000),
        }
        self.redirects = {
            "/moved": "/good.png",
            "/to-file": "file:///etc/passwd",
            "/to-ftp": "ftp://127.0.0.1/picture.png",
            "/to-data": "data:image/png;base64,iVBORw0KGgo=",
            "/loop": "/loop",
            "/ping": "/pong",
            "/pong": "/ping",
        }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def fetch_refused(url: str, max_bytes: int = 1 << 20, **limits: float) -> str:
    with pytest.raises(Phi3VError) as caught:
        fetch_url(url, max_bytes, **limits)
    assert type(caught.value) is ImageFetchError
    message = str(caught.value)
    assert message.startswith(f"{url}: ")
    return message


@pytest.mark.parametrize("path", ["/good.png", "/moved", "/no-length"])
def test_a_url_loads(server: Server, path: str) -> None:
    assert_same(load_image(server.url + path), quadrants())


def test_a_url_with_an_upper_case_scheme_loads(server: Server) -> None:
    assert_same(load_image(server.url.replace("http", "HTTP") + "/good.png"), quadrants())


def test_a_url_that_is_not_found_is_refused(server: Server) -> None:
    url = f"{server.url}/missing.png"
    assert refused(url, ImageFetchError).startswith(f"{url}: the server answered 404")


@pytest.mark.parametrize("path", ["/to-file", "/to-ftp", "/to-data"])
def test_a_redirect_to_another_scheme_is_refused_and_named(server: Server, path: str) -> None:
    url = server.url + path
    message = refused(url, ImageFetchError)
    assert message.startswith(f"{url}: ")
    assert server.redirects[path] in message
    assert "allowed: http and https" in message


@pytest.mark.parametrize("path", ["/loop", "/ping"])
def test_a_redirect_loop_is_refused(server: Server, path: str) -> None:
    message = refused(server.url + path, ImageFetchError)
    assert message.startswith(f"{server.url}{path}: ")
    assert "infinite loop" in message
    assert len(server.seen) <= 12


def test_a_truncated_body_is_refused(server: Server) -> None:
    url = f"{server.url}/cut"
    assert f"{url}: the connection broke after 100 of 5000 bytes" in refused(url, ImageFetchError)


@pytest.mark.parametrize("path", ["/cut-chunked", "/nonsense"])
def test_a_broken_answer_is_refused(server: Server, path: str) -> None:
    fetch_refused(server.url + path)


def test_a_body_of_exactly_the_limit_is_fetched(server: Server) -> None:
    assert fetch_url(f"{server.url}/big", 300_000) == bytes(300_000)


def test_a_body_above_the_limit_is_refused(server: Server) -> None:
    assert "more than 0 MiB" in fetch_refused(f"{server.url}/big", 299_999)


@pytest.mark.parametrize("path", ["/stalled", "/stalled-body"])
def test_a_stalled_server_is_given_up(server: Server, path: str) -> None:
    start = time.monotonic()
    message = fetch_refused(server.url + path, timeout_s=0.3)
    assert time.monotonic() - start < 2
    assert "no answer within 0.3 s" in message


def test_a_dripping_server_is_given_up(server: Server) -> None:
    start = time.monotonic()
    message = fetch_refused(f"{server.url}/drip", total_s=0.3)
    assert time.monotonic() - start < 2
    assert "too slow" in message


def test_a_body_that_is_no_picture_is_refused(server: Server) -> None:
    url = f"{server.url}/page.html"
    assert f"{url} is not a JPEG, PNG" in refused(url)


def test_an_empty_body_is_refused(server: Server) -> None:
    assert f"{server.url}/empty is empty" in refused(f"{server.url}/empty")


def test_a_refused_connection_is_named() -> None:
    with Server() as closed:
        url = f"{closed.url}/good.png"
    assert "cannot be fetched" in fetch_refused(url)


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:port/a.png", "http://127.0.0.1/a b.png", "http://[/a"])
def test_a_malformed_url_is_refused(url: str) -> None:
    assert refused(url, ImageFetchError).startswith(f"{url}: ")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a.png"])
def test_fetch_knows_no_other_scheme(url: str) -> None:
    fetch_refused(url)
