"""What `phi3v batch` is to answer: image files, folders, patterns and tables -> questions about images."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from phi3v.images.suffixes import IMAGE_SUFFIXES

from .item import Item

TABLES = (".jsonl", ".csv")
_URL = ("http://", "https://", "data:")


def read_items(inputs: Sequence[str], questions: Sequence[str]) -> list[Item]:
    """Read everything that the arguments name, in their order and without duplicates.

    Raises click.UsageError, which names file and line, for what cannot be understood.
    """
    found: dict[str, Item] = {}
    for item in _read_all(inputs, questions):
        if found.setdefault(item.id, item) != item:
            raise click.UsageError(f"two questions have the id {item.id!r}; give every row an id of its own")
    return list(found.values())


def read_questions(file: Path) -> list[str]:
    """Read one question per line; empty lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"{file} cannot be read: {exc}") from exc
    if found := [line.strip() for line in lines if line.strip()]:
        return found
    raise click.UsageError(f"{file} holds no question; write one per line")


def _read_all(inputs: Sequence[str], questions: Sequence[str]) -> Iterator[Item]:
    for given in inputs:
        if not given.startswith(_URL) and Path(given).suffix.lower() in TABLES and not Path(given).is_dir():
            yield from _read_table(Path(given), questions)
        else:
            for image in _find_images(given):
                yield from _make_items(image, (image,), questions)


def _find_images(given: str) -> Iterable[str]:
    """Return the images that an argument stands for. What is neither a folder nor a pattern is an image's path."""
    if given.startswith(_URL):
        return [given]
    if os.path.isdir(given):  # noqa: PTH112 - the path is printed as it was given
        found = [os.path.join(at, name) for at, name in _walk(given)]  # noqa: PTH118
    elif glob.has_magic(given) and not os.path.exists(given):  # noqa: PTH110
        found = sorted(path for path in glob.glob(given, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
    else:
        return [given]
    if not found:
        raise click.UsageError(f"{given}: contains no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the images below a folder, sorted. Skips names that start with a dot; follows no links to folders."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield at, name


def _make_items(base: str, images: tuple[str, ...], questions: Sequence[str]) -> Iterator[Item]:
    """Yield the questions about some images. If there are several, their number is part of the id."""
    if not questions:
        raise click.UsageError(f"{base}: what is the question? Give --question TEXT or --questions FILE")
    for number, question in enumerate(questions, start=1):
        yield Item(base if len(questions) == 1 else f"{base}#{number}", images, question)


def _read_table(file: Path, questions: Sequence[str]) -> Iterator[Item]:
    for place, row in _read_rows(file):
        images = tuple(_resolve(file, image) for image in _parse_images(place, row))
        own = row.get("question")
        if own is not None and not isinstance(own, str):
            raise click.UsageError(f"{place}: question is {own!r}; allowed: text")
        if not images and not own:
            raise click.UsageError(
                f"{place} names neither an image nor a question; columns: image, images, question, id"
            )
        base = str(row["id"]) if row.get("id") not in (None, "") else place
        yield from _make_items(base, images, [own] if own else questions)


def _read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file:line, row) of a table."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                reader = csv.DictReader(lines, strict=True)
                yield from ((f"{file}:{reader.line_num}", row) for row in reader)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file}:{number}", _parse_object(f"{file}:{number}", line)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise click.UsageError(f"{file} cannot be read: {exc}") from exc


def _parse_object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"{place} is not JSON: {exc}") from exc
    if not isinstance(row, dict):
        example = '{"image": "a.png", "question": "?"}'
        raise click.UsageError(f"{place} is not a JSON object; write one per line: {example}")
    return row


def _parse_images(place: str, row: dict[str, Any]) -> list[str]:
    """Read the columns `image`, one path or URL, and `images`, a JSON list of them (in CSV as text)."""
    one, several = row.get("image"), row.get("images")
    if isinstance(several, str) and several.strip():
        several = _parse_list(place, several)
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
