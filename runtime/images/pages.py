"""Pages of PDF and TIFF files, as image sources of their own: `scan.pdf#page=2`, as in a link to a PDF (RFC 8118).

A PDF's page is drawn by PDFium (pypdfium2, the extra `pdf`). Only files that a caller names are read in this way: what
a server is sent stays what it is.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ImageError, MissingDependencyError
from ..machine.install import install_line
from .tiff import MAGIC, TiffLayout, tiff_page

PAGED_SUFFIXES = (".pdf", ".tif", ".tiff")
"""Of files that may hold several pages, in lower case."""

DRAWN_SIDE = 2016
"""Pixels of a drawn page's longer side: six crops. At 16 crops, the most, a page of usual shape is scaled to 1344 to
1680 pixels, so that nothing is lost that the model could see."""

_PDF = b"%PDF-"
_PAGE = re.compile(r"(?P<path>.+)#page=(?P<page>[0-9]{1,6})", re.DOTALL)
_PDFIUM = threading.Lock()
"""PDFium is not thread-safe."""


def split_page(source: str) -> tuple[str, int | None]:
    """The path and the page that `path#page=N` names; a file of that whole name is that file."""
    match = _PAGE.fullmatch(source)
    if match is None or os.path.lexists(source):
        return source, None
    return match["path"], int(match["page"])


def join_page(path: str, page: int) -> str:
    """The source that names one page of a file."""
    return f"{path}#page={page}"


def count_pages(path: str | os.PathLike[str]) -> int:
    """Pages of a PDF or TIFF; 1 for any other file. Raises ImageError, and MissingDependencyError for a PDF."""
    from .source import read_file

    data, name = read_file(path), os.fspath(path)
    if data.startswith(_PDF):
        with _open_pdf(data, name) as pdf:
            return len(pdf)
    return _count_tiff_pages(data) if data.startswith(MAGIC) else 1


def extract_page(data: bytes, page: int | None, name: str) -> bytes:
    """The bytes of an image of one page of a file. `page` None: the only one; a file that has no pages stays as it is.

    Raises ImageError for a page that is not there, or none where several are, and MissingDependencyError for a PDF.
    """
    if data.startswith(_PDF):
        with _open_pdf(data, name) as pdf:
            _check_page(page, len(pdf), name)
            return _draw(pdf, (page or 1) - 1, name)
    if page is None:
        return data
    if not data.startswith(MAGIC):
        _check_page(page, 1, name)
        return data
    _check_page(page, _count_tiff_pages(data), name)
    return tiff_page(data, page)


def _check_page(page: int | None, pages: int, name: str) -> None:
    if page is None and pages > 1:
        raise ImageError(f"{name} has {pages} pages; name one of them: {join_page(name, 1)} to #page={pages}")
    if page is not None and not 1 <= page <= pages:
        allowed = f"1 to {pages}" if pages > 1 else "1"
        raise ImageError(f"{name} has {pages} page{'s' * (pages > 1)}, and page {page} is wanted; allowed: {allowed}")


def _count_tiff_pages(data: bytes) -> int:
    try:
        return max(1, len(TiffLayout.of(data).directories(data)))
    except struct.error:  # damaged: what decodes the page will say so
        return 1


@contextmanager
def _open_pdf(data: bytes, name: str) -> Iterator[Any]:
    try:
        import pypdfium2
    except ImportError as exc:
        raise MissingDependencyError(f"{name} is a PDF, which needs pypdfium2; run: {install_line('pdf')}") from exc
    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as exc:
            remedy = "remove the password first" if "assword" in str(exc) else "it is damaged, or not a whole file"
            raise ImageError(f"{name} cannot be opened as a PDF ({exc}); {remedy}") from exc
        try:
            if not len(pdf):
                raise ImageError(f"{name} is a PDF without pages")
            yield pdf
        finally:
            pdf.close()


def _draw(pdf: Any, index: int, name: str) -> bytes:
    """A page as a PNG, on white."""
    import pypdfium2

    try:
        page = pdf[index]
        scale = DRAWN_SIDE / max(*page.get_size(), 1.0)
        image = page.render(scale=scale).to_pil().convert("RGB")
    except (pypdfium2.PdfiumError, ValueError, MemoryError) as exc:
        raise ImageError(f"{join_page(name, index + 1)} cannot be drawn ({exc}); save the page as an image") from exc
    with io.BytesIO() as file:
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()


def has_pages(path: str) -> bool:
    """Whether a path's name is that of a file that may hold several pages."""
    return path.lower().endswith(PAGED_SUFFIXES)


def is_pdf(path: str) -> bool:
    """Whether a path's name is that of a PDF."""
    return path.lower().endswith(PAGED_SUFFIXES[0])
