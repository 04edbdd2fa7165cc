"""What `phi3v batch` is to answer: image files, folders, patterns and tables -> questions about images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from phi3v.images.naming import shown_url

from ..paged import PageSelection
from .folders import ImageFinder
from .item import Item
from .table_rows import KNOWN_COLUMNS, is_table, read_rows

_URL = ("http://", "https://", "data:", "s3://", "gs://")
_MOST_NOTES = 5
_Placed = tuple[str, Item]
"""An item, and the argument or the line of a table that it comes from."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows of a job in their order, and what a person should know of what was not read."""

    items: list[Item]
    notes: list[str]


class InputReader:
    """Reads the arguments of a job. `questions` are asked about all that have none of their own.

    `pages`: of PDF and TIFF files; None: their first one. `encoding`: of tables.
    """

    def __init__(
        self, questions: Sequence[str], *, pages: PageSelection | None = None, encoding: str | None = None
    ) -> None:
        self._questions = questions
        self._pages = pages
        self._encoding = encoding
        self._finder = ImageFinder(pdf=pages is not None)
        self._notes: list[str] = []

    def read(self, inputs: Sequence[str]) -> Inputs:
        """Read everything that the arguments name, in their order. The same question about the same images is one row.

        Raises click.UsageError, which names file and line, for what cannot be understood.
        """
        found: dict[str, _Placed] = {}
        for given in inputs:
            for place, item in self._read_one(given):
                before, same = found.setdefault(item.id, (place, item))
                if same != item or (before != place and item.has_own_id):
                    raise click.UsageError(_describe_clash(before, place, item))
        notes = [*_shorten(self._notes), *self._finder.passed_over.describe()]
        return Inputs([item for _, item in found.values()], notes)

    def _read_one(self, given: str) -> Iterator[_Placed]:
        if not given.startswith(_URL) and is_table(given):
            yield from self._read_table(Path(given))
            return
        for image in [given] if given.startswith(_URL) else self._finder.find(given):
            for page in self._list_pages(image):
                for question in self._asked(image):
                    yield image, Item(make_id((page,), question), (page,), question)

    def _list_pages(self, image: str) -> list[str]:
        if image.startswith(_URL):
            return [image]
        chosen, note = (self._pages or PageSelection.first()).choose(image)
        self._notes += [note] if note else []
        return chosen

    def _asked(self, place: str) -> Sequence[str]:
        if not self._questions:
            raise click.UsageError(f"{place}: what is the question? Give --question TEXT or --questions FILE")
        return self._questions

    def _read_table(self, file: Path) -> Iterator[_Placed]:
        for place, row in read_rows(file, self._encoding):
            images = tuple(_resolve(file, image) for image in _parse_images(place, row))
            own = row.get("question")
            if own is not None and not isinstance(own, str):
                raise click.UsageError(f"{place}: question is {own!r}; allowed: text")
            own = own if own and own.strip() else None
            if not images and not own:
                raise click.UsageError(
                    f"{place} names neither an image nor a question; columns: {', '.join(KNOWN_COLUMNS)}; "
                    f"found: {', '.join(map(str, row)) or 'none'}"
                )
            columns = {str(name): value for name, value in row.items() if name not in KNOWN_COLUMNS}
            named = row.get("id") not in (None, "")
            for number, question in enumerate([own] if own else self._asked(place)):
                name = str(row["id"]) if named else make_id(images, question)
                if named and number:  # the first question has the row's own id, so that others can be added
                    name = f"{name}:{_hash(images, question)}"
                yield place, Item(name, images, question, columns, has_own_id=named)


def _shorten(notes: list[str]) -> list[str]:
    more = len(notes) - _MOST_NOTES
    return notes if more <= 1 else [*notes[:_MOST_NOTES], f"{more} more files have several pages, too"]


def make_id(images: Sequence[str], question: str) -> str:
    """The id of a row that has none of its own: its first image, and a hash of all that is asked."""
    return ":".join([*map(_shown, images[:1]), _hash(images, question)])


def _shown(image: str) -> str:
    """An image's name without secrets; a data: URL has none."""
    if image[:5].lower() == "data:":
        return "data"
    return shown_url(image) if "://" in image else image


def _hash(images: Sequence[str], question: str) -> str:
    asked = json.dumps([*images, question]).encode()
    return hashlib.sha256(asked).hexdigest()[:12]


def _describe_clash(before: str, place: str, item: Item) -> str:
    if item.has_own_id:
        return f"{before} and {place} have the same id, {item.id!r}; give every row an id of its own"
    return f"{before} and {place} ask the same and differ in other columns; give the table a column id"


def read_questions(file: Path) -> list[str]:
    """Read one question per line; empty lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"{file} cannot be read: {exc}") from exc
    if found := [line.strip() for line in lines if line.strip()]:
        return list(dict.fromkeys(found))
    raise click.UsageError(f"{file} holds no question; write one per line")


def _parse_images(place: str, row: dict[str, Any]) -> list[str]:
    """Read the columns `image`, one path or URL, and `images`, a JSON list of them (in CSV as text)."""
    one, several = row.get("image"), row.get("images")
    if isinstance(several, str) and several.strip():
        several = _parse_list(place, several)
    if several is not None and not isinstance(several, list | str):
        raise click.UsageError(f"{place}: images is {several!r}; allowed: a JSON list of paths or URLs")
    if one is not None and not isinstance(one, str):
        raise click.UsageError(
            f"{place}: image is {str(one)[:80]!r}; allowed: one path or URL (paths or URLs in a list are `images`)"
        )
    images = [*([one] if one else []), *(several or [])]
    if not all(isinstance(image, str) and image for image in images):
        raise click.UsageError(f"{place}: images is {str(several)[:80]!r}; allowed: a JSON list of paths or URLs")
    return images


def _parse_list(place: str, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise click.UsageError(f'{place}: images is {text!r}; allowed: a JSON list such as ["a.png", "b.png"]')
    return found


def _resolve(file: Path, image: str) -> str:
    """Resolve a path relative to the table's folder; URLs stay as they are."""
    return image if image.startswith(_URL) else str(file.parent / image)
