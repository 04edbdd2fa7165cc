"""Pages of PDF files as images, drawn by PDFium (pypdfium2, the extra `pdf`).

A page is drawn at about 2 megapixels: A4 at 1188 x 1680. The model sees at most 16 crops of 336 x 336 pixels, 1.8
megapixels in the shape of the page, so this is all the detail that reaches it, with a little more for the resampling.
What is printed small is not blown up: no page is drawn at more than 300 dots per inch, and no side is longer than 6720
pixels, 1.25 times the longest that is seen.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ImageError, MissingDependencyError

_PIXELS = 1188 * 1680
_LONGEST = 6720
_MOST_SCALE = 300 / 72
"""PDF's unit is 1/72 inch."""

_MOST_EMBEDDED_PIXELS = 100_000_000
"""As of an image file: PDFium decodes the images of a page as a whole."""

_ENCRYPTED = (4, 5)
"""FPDF_ERR_PASSWORD and FPDF_ERR_SECURITY."""

_LOCK = threading.Lock()
"""PDFium must not be called from two threads at once, for whatever documents."""


def is_pdf_data(data: bytes) -> bool:
    """Whether a file's first bytes are those of a PDF, some of which begin with blanks or a byte-order mark."""
    return data[:64].lstrip(b"\0\t\n\f\r \xef\xbb\xbf").startswith(b"%PDF-")


@contextmanager
def open_pdf(data: bytes, name: str) -> Iterator[Any]:
    """Hold PDFium with a document of at least one page open in it. Raises ImageError, MissingDependencyError."""
    try:
        import pypdfium2
    except ImportError as exc:
        from ..machine.install import install_line  # importlib.metadata takes its time to import

        raise MissingDependencyError(f"{name} is a PDF, which needs pypdfium2; run: {install_line('pdf')}") from exc
    with _LOCK:
        try:
            document = pypdfium2.PdfDocument(data)
            try:
                if not len(document):
                    raise ImageError(f"{name} is a PDF without pages; check how it was made")
                yield document
            finally:
                document.close()
        except pypdfium2.PdfiumError as exc:
            if getattr(exc, "err_code", None) in _ENCRYPTED:
                raise ImageError(f"{name} is encrypted; save it without a password") from exc
            raise ImageError(f"{name} is a damaged PDF ({exc}); print it into a new PDF, or save it as PNG") from exc
        except MemoryError as exc:
            raise ImageError(f"{name} needs more memory than there is; free some memory") from exc


def draw_page(document: Any, page: int, name: str) -> bytes:
    """Draw a page, counted from 1, on white, as a BMP file. Raises ImageError."""
    document.init_forms()  # or what was filled in is not drawn
    shown = document[page - 1]
    try:
        width, height = shown.get_size()
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise ImageError(f"{name} has a page of {width:g} x {height:g} points; print it into a new PDF")
        _check_embedded_images(shown, name)
        scale = min(math.sqrt(_PIXELS / (width * height)), _LONGEST / max(width, height), _MOST_SCALE)
        image = shown.render(scale=scale, fill_color=(255, 255, 255, 255)).to_pil().convert("RGB")
    finally:
        shown.close()
    with io.BytesIO() as file:
        image.save(file, "BMP")  # which costs no compression
        return file.getvalue()


def _check_embedded_images(page: Any, name: str) -> None:
    """Refuse a page that would unpack to gigabytes, by the sizes that its images state."""
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    for image in page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE]):
        width, height = image.get_px_size()
        if width * height > _MOST_EMBEDDED_PIXELS:
            raise ImageError(
                f"{name} holds an image of {width} x {height} pixels; allowed: {_MOST_EMBEDDED_PIXELS // 10**6} "
                "megapixels. Print the page into a new PDF, or save it as PNG"
            )
