"""The rows of an input table: .jsonl, .csv, .tsv or .parquet, with the line they stand in."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from phi3v.machine.install import install_line
from phi3v.models.near_miss import suggest

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
KNOWN_COLUMNS = ("image", "images", "question", "id")

_FOREIGN = (".json", ".ndjson", ".xls", ".xlsx", ".ods", ".txt", ".arrow", ".feather")
_DELIMITERS = (",", ";", "\t")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_STATED_DELIMITER = re.compile(r"\"?sep=([^\r\n\"])\"?\r?\n", re.IGNORECASE)
"""A first line that Excel writes and reads."""

_NAMES = ("image", "id")
"""Columns whose cells lose the blanks around them."""

_LARGEST_FIELD = 2**31 - 1
Row = dict[str, Any]


def is_table(path: str) -> bool:
    """Whether a path is named like a table. Raises click.UsageError for a kind of table that is not read."""
    suffix = Path(path).suffix.lower()
    if suffix in _FOREIGN and not Path(path).is_dir():
        raise click.UsageError(f"{path}: {suffix} is not read; allowed: {', '.join(TABLES)}, or images")
    return suffix in TABLES and not Path(path).is_dir()


def read_rows(file: Path, encoding: str | None) -> Iterator[tuple[str, Row]]:
    """Yield (file:line, row) of a table; the known columns have their names in lower case.

    `encoding`: of a text; None: UTF-8, or what its byte-order mark says. Raises click.UsageError that names the file.
    """
    if not file.exists():
        beside = [str(other) for other in file.parent.glob("*")] if file.parent.is_dir() else []
        raise click.UsageError(f"{file}: no such file{suggest(str(file), beside)}")
    suffix = file.suffix.lower()
    rows = _read_parquet(file) if suffix == ".parquet" else _read_text(file, suffix, encoding)
    number = 0
    for number, found in enumerate(rows, start=1):  # noqa: B007
        yield found
    if not number:
        raise click.UsageError(f"{file} holds no rows; it needs a column image, images or question")


def _read_text(file: Path, suffix: str, encoding: str | None) -> Iterator[tuple[str, Row]]:
    text = _decode(file, encoding)
    yield from _read_json_lines(file, text) if suffix == ".jsonl" else _read_csv(file, text)


def _decode(file: Path, encoding: str | None) -> str:
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise click.UsageError(f"{file} cannot be read: {exc.strerror}") from exc
    found = encoding or next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(found).removeprefix("\ufeff")
    except LookupError as exc:
        raise click.UsageError(f"--encoding {encoding}: no such encoding; try latin-1, cp1252 or utf-16") from exc
    except UnicodeError as exc:
        where = f" (byte {exc.start})" if isinstance(exc, UnicodeDecodeError) else ""
        raise click.UsageError(f"{file} is not {found}{where}; try --encoding latin-1, cp1252 or utf-16") from exc
    if "\0" in text:
        raise click.UsageError(f"{file} holds NUL characters; if it is UTF-16, try --encoding utf-16-le or utf-16-be")
    return text


def _read_csv(file: Path, text: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(_LARGEST_FIELD)
    stated = _STATED_DELIMITER.match(text)
    text = text[stated.end() :] if stated else text
    try:
        delimiter = stated[1] if stated else _find_delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = _read_header(file, next(filter(None, reader), []))
        for cells in filter(None, reader):
            place = f"{file}:{reader.line_num + bool(stated)}"
            if len(cells) > len(header):
                raise click.UsageError(
                    f"{place}: {len(cells)} cells, and the header has {len(header)}; put a cell that holds "
                    f"{delimiter!r} in quotes"
                )
            row: Row = dict.fromkeys(header) | dict(zip(header, cells, strict=False))
            row |= {name: row[name].strip() for name in _NAMES if row.get(name)}
            if row.pop("", None):
                raise click.UsageError(f"{place}: a cell stands in a column without a name; name it in the header")
            yield place, row
    except csv.Error as exc:
        raise click.UsageError(f"{file}:{reader.line_num + bool(stated)} cannot be read: {exc}") from exc


def _find_delimiter(text: str) -> str:
    """What parts the header into the most known columns; of those, into the most."""
    line = next((line for line in text.splitlines(keepends=True) if line.strip()), "")

    def score(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return sum(name.strip().lower() in KNOWN_COLUMNS for name in names), len(names)

    return max(_DELIMITERS, key=score)


def _read_header(file: Path, cells: Sequence[str]) -> list[str]:
    if not cells:
        raise click.UsageError(f"{file} is empty; it needs a header with a column image, images or question")
    header = [_name_column(cell) for cell in cells]
    if repeated := [name for name, count in Counter(header).items() if count > 1 and name]:
        raise click.UsageError(f"{file}: the header names {repeated[0]!r} twice; name each column once")
    if not set(header) & {"image", "images", "question"}:
        near = next(filter(None, (suggest(name, KNOWN_COLUMNS[:3]) for name in header)), "")
        raise click.UsageError(
            f"{file} has the columns {', '.join(map(repr, header[:20]))}, and none of image, images and question{near}"
        )
    return header


def _name_column(cell: str) -> str:
    name = cell.strip()
    return name.lower() if name.lower() in KNOWN_COLUMNS else name


def _read_json_lines(file: Path, text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{file}:{number}", _parse_object(f"{file}:{number}", line)


def _parse_object(place: str, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"{place} is not JSON: {exc}") from exc
    if not isinstance(row, dict):
        example = '{"image": "a.png", "question": "?"}'
        raise click.UsageError(f"{place} is not a JSON object; write one per line: {example}")
    return {key if _name_column(key) in row else _name_column(key): value for key, value in row.items()}


def _read_parquet(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise click.UsageError(f"{file} needs pyarrow; run: {install_line('parquet')}") from exc
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            _read_header(file, table.schema_arrow.names)
            rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"{file}, row {number}", {_name_column(name): value for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as exc:
        raise click.UsageError(f"{file} cannot be read as Parquet: {exc}") from exc
