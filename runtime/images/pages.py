"""Pages of PDF and TIFF files, as image sources of their own: `scan.pdf#page=2`, as in a link to a PDF (RFC 8118).

Only files that a caller names are read in this way: what a server is sent stays what it is.
"""

from __future__ import annotations

import os
import re

from ..errors import ImageError
from .local_file import read_file
from .pdf import draw_page, is_pdf_data, open_pdf
from .tiff import DAMAGED, MAGIC, TiffLayout, tiff_page

PAGED_SUFFIXES = (".pdf", ".tif", ".tiff")
"""Of files that may hold several pages, in lower case."""

_PAGE = re.compile(r"(?P<path>.+)#page=(?P<page>[0-9]{1,6})", re.DOTALL)


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
    data, name = read_file(path), os.fspath(path)
    if is_pdf_data(data):
        with open_pdf(data, name) as pdf:
            return len(pdf)
    return _count_tiff_pages(data) if data.startswith(MAGIC) else 1


def extract_page(data: bytes, page: int | None, name: str) -> bytes:
    """The bytes of an image of one page of a file. `page` None: the only one; a file that has no pages stays as it is.

    Raises ImageError for a page that is not there, or none where several are, and MissingDependencyError for a PDF.
    """
    if is_pdf_data(data):
        with open_pdf(data, name) as pdf:
            _check_page(page, len(pdf), name)
            return draw_page(pdf, page or 1, name)
    if page is None:
        return data
    if not data.startswith(MAGIC):
        _check_page(page, 1, name)
        return data
    _check_page(page, _count_tiff_pages(data), name)
    try:
        return tiff_page(data, page)
    except DAMAGED as exc:
        raise ImageError(f"page {page} of {name} cannot be found; the file is damaged") from exc


def _check_page(page: int | None, pages: int, name: str) -> None:
    if page is None and pages > 1:
        raise ImageError(f"{name} has {pages} pages; name one of them: {join_page(name, 1)} to #page={pages}")
    if page is not None and not 1 <= page <= pages:
        allowed = f"1 to {pages}" if pages > 1 else "1"
        raise ImageError(f"{name} has {pages} page{'s' * (pages > 1)}, and page {page} is wanted; allowed: {allowed}")


def _count_tiff_pages(data: bytes) -> int:
    try:
        return max(1, len(TiffLayout.of(data).directories(data)))
    except DAMAGED:  # damaged: what decodes the page will say so
        return 1


def has_pages(path: str) -> bool:
    """Whether a path's name is that of a file that may hold several pages."""
    return path.lower().endswith(PAGED_SUFFIXES)


def is_pdf(path: str) -> bool:
    """Whether a path's name is that of a PDF."""
    return path.lower().endswith(PAGED_SUFFIXES[0])
