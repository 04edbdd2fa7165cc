"""--pages: which pages of PDF and TIFF files are read, each as an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

from phi3v.errors import ImageError

_ALL = "all"
_PART = re.compile(r"([0-9]{1,6})(-([0-9]{0,6}))?")
_HELP = "Pages of PDF and multi-page TIFF files, each read as an image: 1-3,5, 4- or all. Default: the first."


@dataclass(frozen=True, slots=True)
class PageSelection:
    """Ranges of pages counted from 1; an end of None is the last page. `text`: as they were given."""

    text: str
    ranges: tuple[tuple[int, int | None], ...]

    @classmethod
    def first(cls) -> PageSelection:
        """The first page alone."""
        return cls("", ((1, 1),))

    @classmethod
    def parse(cls, text: str) -> PageSelection:
        """Read `1-3,5`, `4-` or `all`. Raises click.BadParameter."""
        if text.strip().lower() == _ALL:
            return cls(_ALL, ((1, None),))
        ranges = list[tuple[int, int | None]]()
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            begin, end = (int(match[1]), match[3]) if match else (0, None)
            last = begin if match and match[2] is None else int(end) if end else None
            if not match or begin < 1 or (last is not None and last < begin):
                raise click.BadParameter(f"{part.strip()!r} names no pages; write 1-3,5, 4- or all")
            ranges.append((begin, last))
        return cls(text, tuple(ranges))

    def of(self, pages: int) -> list[int]:
        """The chosen ones of so many pages, each once, in order."""
        chosen = {page for begin, end in self.ranges for page in range(begin, min(end or pages, pages) + 1)}
        return sorted(chosen)

    def choose(self, image: str) -> tuple[list[str], str | None]:
        """The sources that stand for an image's chosen pages, and what a person should know of the others.

        A file that cannot be opened stands for itself, so that its error is that of its row.
        """
        from phi3v.images.pages import count_pages, has_pages, is_pdf, join_page, split_page

        wanted = bool(self.text) or is_pdf(image)  # the first page of a TIFF is read as it is, with a note
        if not wanted or not has_pages(image) or split_page(image)[1] is not None:
            return [image], None
        try:
            pages = count_pages(image)
        except ImageError:
            return [image], None
        if pages == 1:
            return [image] if 1 in self.of(1) else [], None
        chosen = self.of(pages)
        if not chosen:
            return [], f"{image} has {pages} pages, and --pages {self.text} names none of them"
        note = f"{image}: page 1 of {pages} is read; --pages reads more" if not self.text else None
        return [join_page(image, page) for page in chosen], note


def _read(_: click.Context, __: click.Parameter, value: str | None) -> PageSelection | None:
    return None if value is None else PageSelection.parse(value)


pages_option = click.option("--pages", metavar="LIST", callback=_read, help=_HELP)
