"""What `phi3v batch` is to answer: picture files, folders, patterns and tables -> questions about pictures."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TABLES = (".jsonl", ".csv")
_URL = ("http://", "https://", "data:")


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `id` tells it from all others of a run; `images` are paths or URLs."""

    id: str
    images: tuple[str, ...]
    question: str


def read_items(inputs: Sequence[str], questions: Sequence[str]) -> list[Item]:
    """Everything that the arguments name, in their order, each thing once.

    Raises click.UsageError, naming file and line, for what cannot be understood.
    """
    found: dict[str, Item] = {}
    for item in _all(inputs, questions):
        if found.setdefault(item.id, item) != item:
            raise click.UsageError(f"two questions have the id {item.id!r}; give every row an id of its own")
    return list(found.values())


def read_questions(file: Path) -> list[str]:
    """One question a line; empty lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"{file} cannot be read: {exc}") from exc
    if found := [line.strip() for line in lines if line.strip()]:
        return found
    raise click.UsageError(f"{file} holds no question; write one a line")


def _all(inputs: Sequence[str], questions: Sequence[str]) -> Iterator[Item]:
    for given in inputs:
        if not given.startswith(_URL) and Path(given).suffix.lower() in TABLES and not Path(given).is_dir():
            yield from _table(Path(given), questions)
        else:
            for picture in _pictures(given):
                yield from _asked(picture, (picture,), questions)


def _pictures(given: str) -> Iterable[str]:
    """The pictures one argument stands for. What is no folder and no pattern is taken for a picture's path."""
    if given.startswith(_URL):
        return [given]
    if os.path.isdir(given):  # noqa: PTH112 - the path is printed as it was given
        found = [os.path.join(at, name) for at, name in _walk(given)]  # noqa: PTH118
    elif glob.has_magic(given) and not os.path.exists(given):  # noqa: PTH110
        found = sorted(path for path in glob.glob(given, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
    else:
        return [given]
    if not found:
        raise click.UsageError(f"{given}: no picture there ({', '.join(PICTURES)})")
    return found


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """Pictures below a folder, sorted; names that start with a dot are skipped, links to folders not followed."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(PICTURES) and not name.startswith("."):
                yield at, name


def _asked(base: str, images: tuple[str, ...], questions: Sequence[str]) -> Iterator[Item]:
    """The questions about some pictures; with several, their number is part of the id."""
    if not questions:
        raise click.UsageError(f"{base}: what is the question? Give --question TEXT or --questions FILE")
    for number, question in enumerate(questions, start=1):
        yield Item(base if len(questions) == 1 else f"{base}#{number}", images, question)


def _table(file: Path, questions: Sequence[str]) -> Iterator[Item]:
    for place, row in _rows(file):
        images = tuple(_beside(file, image) for image in _images(place, row))
        own = row.get("question")
        if own is not None and not isinstance(own, str):
            raise click.UsageError(f"{place}: question is {own!r}; allowed: text")
        if not images and not own:
            raise click.UsageError(
                f"{place} names neither an image nor a question; columns: image, images, question, id"
            )
        base = str(row["id"]) if row.get("id") not in (None, "") else place
        yield from _asked(base, images, [own] if own else questions)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of a table."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                reader = csv.DictReader(lines, strict=True)
                yield from ((f"{file}:{reader.line_num}", row) for row in reader)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file}:{number}", _object(f"{file}:{number}", line)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise click.UsageError(f"{file} cannot be read: {exc}") from exc


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"{place} is no JSON: {exc}") from exc
    if not isinstance(row, dict):
        raise click.UsageError(f"{place} is no JSON object; write one a line: " + '{"image": "a.png", "question": "?"}')
    return row


def _images(place: str, row: dict[str, Any]) -> list[str]:
    """`image` is one path or URL; `images` a JSON list of them, in CSV also as text."""
    one, several = row.get("image"), row.get("images")
    if isinstance(several, str) and several.strip():
        several = _object_or_list(place, several)
    if several is not None and not isinstance(several, list | str):
        raise click.UsageError(f"{place}: images is {several!r}; allowed: a JSON list of paths or URLs")
    if one is not None and not isinstance(one, str):
        raise click.UsageError(
            f"{place}: image is {one!r}; allowed: one path or URL (paths or URLs in a list are `images`)"
        )
    images = [*([one] if one else []), *(several or [])]
    if not all(isinstance(image, str) and image for image in images):
        raise click.UsageError(f"{place}: images is {several!r}; allowed: a JSON list of paths or URLs")
    return images


def _object_or_list(place: str, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise click.UsageError(f'{place}: images is {text!r}; allowed: a JSON list such as ["a.png", "b.png"]')
    return found


def _beside(file: Path, image: str) -> str:
    """A path relative to the table it stands in; URLs as they are."""
    return image if image.startswith(_URL) else str(file.parent / image)
