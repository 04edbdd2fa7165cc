"""The results of `phi3v batch` as a table: CSV or Parquet, written as a whole from the journal beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from phi3v.errors import MissingDependencyError, OptionError
from phi3v.machine.install import install_line

from .journal import Line, replacing

COLUMNS = {
    "id": "string",
    "images": "list",
    "question": "string",
    "answer": "string",
    "finish_reason": "string",
    "prompt_tokens": "int64",
    "image_tokens": "int64",
    "completion_tokens": "int64",
    "image_decode_s": "double",
    "preprocess_s": "double",
    "prefill_s": "double",
    "decode_s": "double",
    "notes": "list",
    "error": "string",
}
"""Columns and their types. Lists hold strings; CSV has them as JSON."""


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


def write_table(out: Path, lines: Iterable[Line], order: Mapping[str, int]) -> None:
    """Write the table in the order of the inputs. It replaces an older one only once it is complete."""
    ordered = sorted(lines, key=lambda line: order.get(line["id"], len(order)))
    rows = [_flatten(line) for line in ordered]
    with replacing(out, len(rows)) as scratch:
        (_write_parquet if out.suffix.lower() == ".parquet" else _write_csv)(scratch, rows)


def _flatten(line: Line) -> dict[str, Any]:
    flat = {**line, **(line["usage"] or {}), **(line["timings"] or {})}
    return {name: flat.get(name) for name in COLUMNS}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({name: _as_json(value) for name, value in row.items()} for row in rows)


def _as_json(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    arrow, parquet = _import_pyarrow()
    kinds = {kind: getattr(arrow, kind)() for kind in ("string", "int64")} | {"double": arrow.float64()}
    kinds["list"] = arrow.list_(arrow.string())
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    text = [{name: _make_encodable(value) for name, value in row.items()} for row in rows]
    parquet.write_table(arrow.Table.from_pylist(text, schema=schema), path)


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
