"""The results of `phi3v batch` as a table: CSV or Parquet, written as a whole from the journal beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from phi3v.errors import MissingDependencyError, OptionError
from phi3v.machine.install import install_line
from phi3v.structured.columns import Column, arrow_type

from .item import Item
from .journal import Journal, replacing
from .lines import LineMaker

_ROW_GROUP = 10_000
"""Rows that are in memory at a time while Parquet is written."""


def journal_of(out: Path) -> Path:
    """Return where results are collected: the file itself if it is .jsonl, else a file beside it.

    Raises OptionError for an unknown suffix, MissingDependencyError for Parquet without pyarrow.
    """
    suffix = out.suffix.lower()
    if suffix == ".jsonl":
        return out
    if suffix == ".parquet":
        _import_pyarrow()
    elif suffix != ".csv":
        raise OptionError(f"--out {out}: the suffix says what is written; allowed: .jsonl, .csv, .parquet")
    return out.with_name(f"{out.name}.journal.jsonl")


def check_replaceable(out: Path, journal: Path) -> None:
    """Refuse to write the table over a file that no journal of ours stands behind. Raises click.UsageError."""
    if journal != out and out.exists() and not journal.exists():
        raise click.UsageError(
            f"{out} is there and {journal.name}, which it would be made from, is not; give --out another file, or "
            "delete this one"
        )


def write_table(out: Path, journal: Journal, maker: LineMaker, items: Sequence[Item]) -> None:
    """Write the table in the order of the items; lines of other items follow.

    It replaces an older one only once it is complete.
    """
    order = list(dict.fromkeys([*(item.id for item in items if item.id in journal.done), *journal.done]))
    columns = maker.columns(journal.read(order))
    rows = maker.rows(journal.read(order), columns)
    with replacing(out, len(order)) as scratch:
        (_write_parquet if out.suffix.lower() == ".parquet" else _write_csv)(scratch, columns, rows)


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in columns])
        writer.writeheader()
        writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)


def _as_text(value: Any) -> Any:
    """Lists are JSON in CSV, and so are true and false."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value


def _write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[dict[str, Any]]) -> None:
    arrow, parquet = _import_pyarrow()
    schema = arrow.schema([(column.name, arrow_type(column)) for column in columns])
    with parquet.ParquetWriter(path, schema) as writer:
        source = iter(rows)
        while some := list(islice(source, _ROW_GROUP)):
            text = [{name: _make_encodable(value) for name, value in row.items()} for row in some]
            writer.write_table(arrow.Table.from_pylist(text, schema=schema))


def _make_encodable(value: Any) -> Any:
    """Return the value as UTF-8 can hold it: half of a surrogate pair becomes its escape."""
    if isinstance(value, list):
        return [_make_encodable(part) for part in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingDependencyError(
            f"a .parquet file needs pyarrow ({exc}); run: {install_line('parquet')}, or write .jsonl or .csv"
        ) from exc
    return pyarrow, pyarrow.parquet
