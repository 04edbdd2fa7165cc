"""Pages of PDF and TIFF files as images, and files that only look like them."""

import contextlib
import sys
from pathlib import Path

import pytest
from PIL import Image

from phi3v.errors import ImageError, ImageNotFoundError, MissingDependencyError
from phi3v.images.load import image_size, load_image, read_image
from phi3v.images.pages import count_pages, split_page

COLOURS = ((255, 0, 0), (0, 128, 0), (0, 0, 255))


@pytest.fixture(params=["pdf", "tif"])
def paged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "pdf":
        pytest.importorskip("pypdfium2")
    path = tmp_path / f"scan.{request.param}"
    save(path, len(COLOURS))
    return path


def save(path: Path, count: int) -> None:
    pages = [Image.new("RGB", (60, 80), colour) for colour in COLOURS[:count]]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def near(one: object, other: object) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 4  # type: ignore[call-overload]


def test_each_page_is_an_image_of_its_own(paged: Path) -> None:
    assert count_pages(paged) == 3
    for number, colour in enumerate(COLOURS, start=1):
        read = read_image(f"{paged}#page={number}")
        assert near(read.image.getpixel((5, 5)), colour)
        assert read.notes == ()
        assert image_size(f"{paged}#page={number}") == read.image.size


@pytest.mark.parametrize("page", [0, 4, 999999])
def test_a_page_that_is_not_there_says_how_many_are(paged: Path, page: int) -> None:
    with pytest.raises(ImageError, match=rf"has 3 pages, and page {page} is wanted; allowed: 1 to 3"):
        load_image(f"{paged}#page={page}")


def test_a_pdf_of_several_pages_wants_one_named_and_one_of_one_does_not(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    save(tmp_path / "three.pdf", 3)
    with pytest.raises(ImageError, match=r"has 3 pages; name one of them: .*three.pdf#page=1 to #page=3"):
        load_image(tmp_path / "three.pdf")
    save(tmp_path / "one.pdf", 1)
    assert load_image(tmp_path / "one.pdf").size == (251, 334)  # 60 x 80 points at 300 dots per inch


def test_a_page_has_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    for width, height in ((595, 842), (842, 595), (200, 2000), (3000, 30)):
        Image.new("RGB", (width, height)).save(tmp_path / "page.pdf")
        shown = load_image(tmp_path / "page.pdf").size
        assert shown[0] * shown[1] <= 1.01 * 1188 * 1680
        assert max(shown) <= 6721
    assert load_image(tmp_path / "page.pdf").size[0] > 6000


def test_a_tiff_with_an_offset_behind_everything_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "big.tif").write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8 + b"\0" * 64)
    for source in ("big.tif", "big.tif#page=1", "big.tif#page=2"):
        with pytest.raises(ImageError):
            load_image(f"{tmp_path}/{source}")


def test_a_tiff_without_a_page_is_its_first_with_a_note(tmp_path: Path) -> None:
    save(tmp_path / "scan.tif", 3)
    read = read_image(tmp_path / "scan.tif")
    assert read.image.getpixel((5, 5)) == COLOURS[0]
    assert "page 1 of 3 is read, and no other; #page=2" in read.notes[0]


def test_a_file_whose_name_looks_like_a_page_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.png#page=2"
    Image.new("RGB", (8, 8), COLOURS[1]).save(path, "PNG")
    assert split_page(str(path)) == (str(path), None)
    assert load_image(str(path)).getpixel((1, 1)) == COLOURS[1]


def test_other_images_have_one_page(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert load_image(f"{tmp_path}/a.png#page=1").size == (8, 8)
    with pytest.raises(ImageError, match=r"has 1 page, and page 2 is wanted; allowed: 1$"):
        load_image(f"{tmp_path}/a.png#page=2")
    with pytest.raises(ImageNotFoundError, match=r"absent\.pdf: no such file"):
        load_image(f"{tmp_path}/absent.pdf#page=2")


@pytest.mark.parametrize("content", [b"%PDF-1.7\n", b"%PDF-1.4\n" + b"\0" * 5000, b"%PDF-"])
def test_a_broken_pdf_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pypdfium2")
    (tmp_path / "bad.pdf").write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.pdf is a damaged PDF"):
        load_image(tmp_path / "bad.pdf")


def test_half_a_pdf_is_an_error_or_an_image(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    save(tmp_path / "whole.pdf", 2)
    data = (tmp_path / "whole.pdf").read_bytes()
    for cut in range(100, len(data), max(1, len(data) // 25)):
        (tmp_path / "cut.pdf").write_bytes(data[:cut])
        with contextlib.suppress(ImageError):
            load_image(f"{tmp_path}/cut.pdf#page=1")


def test_a_pdf_without_pypdfium2_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n")
    with pytest.raises(MissingDependencyError, match=r"needs pypdfium2; run: pip install .*\[pdf\]"):
        load_image(tmp_path / "a.pdf")


def test_bytes_of_a_pdf_are_no_image() -> None:
    with pytest.raises(ImageError, match="a PDF, which is read from a file that is named"):
        load_image(b"%PDF-1.4\n")


def test_heic_and_avif_are_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    for name in ("a.heic", "a.avif"):
        Image.new("RGB", (64, 48), COLOURS[0]).save(tmp_path / name)
        image = load_image(tmp_path / name)
        assert image.size == (64, 48)
        assert near(image.getpixel((5, 5)), COLOURS[0])


def test_heic_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDependencyError, match=r"HEIC, which needs pillow-heif; run: pip install .*\[heic\]"):
        load_image(b"\0\0\0\x18ftypheic" + b"\0" * 100)


@pytest.mark.parametrize("brand", [b"heic", b"avif", b"mif1"])
def test_a_damaged_heic_or_avif_is_an_error(brand: bytes) -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(ImageError):
        load_image(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"\0" * 200)
