"""The results of `phi3v batch` as a table: CSV or Parquet, written as a whole from the journal beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3v.errors import MissingDependencyError, OptionError

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
    "error": "string",
}
"""Columns and their types; `images` is a list of text, in CSV written as JSON."""


def journal_of(out: Path) -> Path:
    """Where results are gathered: the file itself when it takes lines, else one beside it.

    Raises OptionError for a suffix that is not known, MissingDependencyError for Parquet without pyarrow.
    """
    suffix = out.suffix.lower()
    if suffix == ".jsonl":
        return out
    if suffix == ".parquet":
        _pyarrow()
    elif suffix != ".csv":
        raise OptionError(f"--out {out}: the suffix says what is written; allowed: .jsonl, .csv, .parquet")
    return out.with_name(f"{out.name}.journal.jsonl")


def write_table(out: Path, lines: Iterable[Line], order: Mapping[str, int]) -> None:
    """Write the table, in the order of the inputs; it replaces an older one only when it is whole."""
    ordered = sorted(lines, key=lambda line: order.get(line["id"], len(order)))
    rows = [_row(line) for line in ordered]
    with replacing(out, len(rows)) as scratch:
        (_write_parquet if out.suffix.lower() == ".parquet" else _write_csv)(scratch, rows)


def _row(line: Line) -> dict[str, Any]:
    flat = {**line, **(line["usage"] or {}), **(line["timings"] or {})}
    return {name: flat.get(name) for name in COLUMNS}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "images": json.dumps(row["images"], ensure_ascii=False)} for row in rows)


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    arrow, parquet = _pyarrow()
    kinds = {kind: getattr(arrow, kind)() for kind in ("string", "int64")} | {"double": arrow.float64()}
    kinds["list"] = arrow.list_(arrow.string())
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    text = [{name: _printable(value) for name, value in row.items()} for row in rows]
    parquet.write_table(arrow.Table.from_pylist(text, schema=schema), path)


def _printable(value: Any) -> Any:
    """Text that can be UTF-8: half of a surrogate pair becomes its escape."""
    if isinstance(value, list):
        return [_printable(part) for part in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingDependencyError(
            f"a .parquet file needs pyarrow ({exc}); run: pip install 'phi3v[parquet]', or write .jsonl or .csv"
        ) from exc
    return pyarrow, pyarrow.parquet
