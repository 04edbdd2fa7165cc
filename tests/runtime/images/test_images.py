"""Every kind of picture source, and every way one can be hostile: a clear error in under two seconds, always."""

import base64
import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from platforms import needs_posix

from phi3v import hd
from phi3v.errors import ImageError, ImageFetchError, ImageNotFoundError
from phi3v.images.fetch import fetch_url
from phi3v.images.load import check_image, load_image

RED = (204, 51, 0)
"""In the web palette, so that GIF and palette PNG hold it exactly."""


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, RED).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def near_red(picture: Image.Image) -> bool:
    return picture.mode == "RGB" and bool(np.abs(np.asarray(picture).astype(int) - RED).max() < 12)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"),
        ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"),
    ],
)  # fmt: skip
def test_every_format_becomes_rgb(kind: str, mode: str) -> None:
    assert near_red(load_image(encoded(kind, mode)))


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), RED).save(buffer, "JPEG", exif=exif)
    assert load_image(buffer.getvalue()).size == (20, 40)


def test_exif_rotation_is_applied_to_deep_greys_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 16), 0x8000, dtype=np.uint16)).save(buffer, "PNG", exif=exif)
    assert load_image(buffer.getvalue()).size == (8, 16)


def test_a_picture_opened_as_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "text-mode.png"
    path.write_bytes(encoded("PNG"))
    with path.open(encoding="utf-8") as file, pytest.raises(ImageError, match=r"text-mode\.png.*'rb'"):
        load_image(file)  # type: ignore[arg-type]


def test_the_first_frame_of_a_gif_is_taken() -> None:
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (9, 9), RED), Image.new("RGB", (9, 9), (0, 0, 255))
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    assert near_red(load_image(buffer.getvalue()))


def test_deep_greys_keep_their_upper_bits() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16)).save(buffer, "PNG")
    assert np.asarray(load_image(buffer.getvalue())).tolist()[0][0] == [128, 128, 128]


def test_every_kind_of_source_is_taken(tmp_path: Path) -> None:
    data = encoded("PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    array = np.full((5, 6, 3), RED, dtype=np.uint8)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    with path.open("rb") as file:
        for source in (path, str(path), data, bytearray(data), Image.new("RGB", (3, 3), RED), array, url, file):
            assert near_red(load_image(source))
    assert load_image(array[..., 0]).size == (6, 5)


def huge_png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG whose header claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is said over and over: each costs a pass over all pixels."""
    buffer = io.BytesIO()
    Image.new("L", (900, 900), 100).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:last] + data[last:end] * scans + data[end:]


HOSTILE = {
    "scan-bomb.jpg": many_scans(5000),
    "empty": b"",
    "random": np.random.default_rng(0).bytes(5000),
    "text": b"just a letter\n" * 50,
    "pdf": b"%PDF-1.4\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "truncated.jpg": encoded("JPEG", size=(600, 600))[:2000],
    "truncated.png": encoded("PNG", size=(600, 600))[:600],
    "truncated.webp": encoded("WEBP", size=(600, 600))[:60],
    "200-megapixels.png": huge_png(20000, 10000),
    "bomb.png": huge_png(60000, 60000, bytes(1 << 24)),
    "short-body.png": huge_png(9000, 9000, bytes(1 << 20)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_within_two_seconds(tmp_path: Path, name: str) -> None:
    if name == "pdf":
        pytest.importorskip("pypdfium2")  # without it the error is that it is missing (test_pages.py)
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    began = time.process_time()
    with pytest.raises(ImageError, match=name):
        load_image(path)
    assert time.process_time() - began < 2


def test_a_progressive_jpeg_of_many_honest_scans_is_read() -> None:
    assert load_image(many_scans(50)).size == (900, 900)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_greys_of_the_largest_size_take_seconds_and_little_memory(mode: str) -> None:
    picture = Image.new(mode, (10_000, 10_000), 0x8080)
    tracemalloc.start()
    began = time.process_time()
    assert load_image(picture).getpixel((9_999, 9_999)) == (0x80, 0x80, 0x80)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 6
    assert peak < 1.2e9


def test_thirty_two_bit_greys_keep_their_upper_bits() -> None:
    for values, expected in (
        ([0, 255, 256, 0x8000, 0xFFFF], [0, 0, 1, 128, 255]),
        ([0, 0x8000, 0x40000000, 0x7FFFFFFF], [0, 0, 128, 255]),
    ):
        picture = Image.fromarray(np.array([values], dtype=np.int32))
        assert np.asarray(load_image(picture))[0, :, 0].tolist() == expected


def test_reading_pictures_in_threads_leaves_the_warning_filters_alone() -> None:
    data, before = encoded("PNG", size=(1500, 1500)), list(warnings.filters)
    threads = [threading.Thread(target=lambda: [load_image(data) for _ in range(8)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_a_check_finds_what_is_no_picture_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded("PNG", size=(600, 600))[:600])
    check_image(str(path))
    path.write_text("no picture")
    for source in (str(path), str(tmp_path / "absent.png"), "data:,hello"):
        with pytest.raises(ImageError):
            check_image(source)
    check_image("http://127.0.0.1:1/never-asked.png")


class Reader:
    """A caller's own file object."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def read(self, size: int = -1) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        answer = self.answer
        if isinstance(answer, bytearray):
            self.answer = b""  # a file at its end
        return answer


def test_a_reader_may_hand_out_any_bytes_and_fail_in_any_way() -> None:
    assert near_red(load_image(Reader(bytearray(encoded("PNG")))))  # type: ignore[arg-type]
    for answer, said in ((RuntimeError("boom"), "boom"), ("text", "reads str"), (7, "reads int")):
        with pytest.raises(ImageError, match=said):
            load_image(Reader(answer))  # type: ignore[arg-type]


def test_base64_with_line_breaks_is_read() -> None:
    assert near_red(load_image("data:image/png;base64," + base64.encodebytes(encoded("PNG")).decode()))


def test_another_kind_of_address_is_told_from_a_path() -> None:
    with pytest.raises(ImageError, match="give the file's path"):
        load_image("file:///tmp/photo.png")


@needs_posix
def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ImageNotFoundError, match="absent"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="pipe is empty"):
        load_image(pipe)


@pytest.mark.parametrize(
    "source",
    [
        "data:image/png;base64", "data:image/png;base64,@@@", "data:,hello", "data:image/png,\ud800", "a\0b", 7,
        io.StringIO("text"), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)  # fmt: skip
def test_a_source_of_the_wrong_kind_is_refused(source: object) -> None:
    with pytest.raises(ImageError):
        load_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000)])
def test_the_oddest_shapes_work(size: tuple[int, int]) -> None:
    picture = load_image(encoded("PNG", size=size))
    for num_crops in (1, 16):
        assert hd.transform(picture, num_crops).crops.any()


class Site(BaseHTTPRequestHandler):
    """A server with one path for each way to be wrong."""

    stall: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        redirects = {"/file": "file:///etc/passwd", "/ftp": "ftp://localhost/x", "/loop": "/loop", "/moved": "/good"}
        if self.path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[self.path])
            self.end_headers()
        elif self.path == "/drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.stall.wait(0.05):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
        elif self.path == "/stall":
            self.stall.wait(5)
        elif self.path == "/endless":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            while not self.stall.is_set():
                try:
                    self.wfile.write(bytes(1 << 16))
                except OSError:
                    return
        elif self.path == "/a%20b/%C3%BC%20c.png?q=%C3%A4":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded("PNG"))
        elif self.path in ("/good", "/text", "/short"):
            body = b"no picture" if self.path == "/text" else encoded("PNG")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (500 if self.path == "/short" else 0)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stall.set()
    server.shutdown()
    server.server_close()


def test_a_url_is_fetched_also_after_a_redirect(site: str) -> None:
    assert near_red(load_image(f"{site}/good"))
    assert near_red(load_image(f"{site}/moved"))
    assert near_red(load_image(f"{site}/endless"))


def test_umlauts_and_spaces_in_a_url_are_escaped_once(site: str) -> None:
    assert near_red(load_image(f"{site}/a%20b/ü c.png?q=ä#top"))


FAILURES: dict[str, Callable[[str], object]] = {
    "404": lambda site: load_image(f"{site}/absent"),
    "file:///etc/passwd": lambda site: load_image(f"{site}/file"),
    "ftp://": lambda site: load_image(f"{site}/ftp"),
    "redirects to a place": lambda site: load_image(f"{site}/loop"),
    "connection broke": lambda site: load_image(f"{site}/short"),
    "more than": lambda site: fetch_url(f"{site}/good", 10),
    "no answer|timed out": lambda site: fetch_url(f"{site}/stall", 1000, timeout_s=0.3),
    "too slow": lambda site: fetch_url(f"{site}/drip", 1000, timeout_s=1, total_s=0.4),
    "allowed: http": lambda _: fetch_url("file:///etc/passwd", 1000),
    "cannot be fetched": lambda site: load_image("http://127.0.0.1:1/x"),
}


@pytest.mark.parametrize("said", FAILURES)
def test_a_url_that_fails_says_how(site: str, said: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ImageFetchError, match=said):
        FAILURES[said](site)
    assert time.perf_counter() - began < 20  # the server itself would take longer


def test_a_url_that_is_no_picture_is_named(site: str) -> None:
    with pytest.raises(ImageError, match="/text"):
        load_image(f"{site}/text")
