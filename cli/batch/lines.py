"""One row of a job's results: what the journal keeps of it, and its cells in a table."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phi3v.errors import Phi3VError
from phi3v.structured.columns import AnswerColumns, Column, ColumnType, common_type, free_names, type_of

if TYPE_CHECKING:
    from phi3v.answer_format import AnswerFormat
    from phi3v.batch import Outcome

    from .item import Item

Line = dict[str, Any]

_ANSWER = ("answer", "finish_reason", "usage", "timings", "notes", "error", "error_type")
_KEYS = ("id", "images", "question", *_ANSWER, "run")
_BEFORE = (Column("id", "string"), Column("images", "string", many=True), Column("question", "string"))
_BEHIND = (
    Column("finish_reason", "string"),
    *(Column(name, "int64") for name in ("prompt_tokens", "cached_tokens", "image_tokens", "completion_tokens")),
    *(Column(name, "double") for name in ("image_decode_s", "preprocess_s", "prefill_s", "decode_s")),
    Column("notes", "string", many=True),
    Column("error", "string"),
    Column("error_type", "string"),
)


class LineMaker:
    """Makes the lines of a job: a row's own columns travel along, as `input_NAME` where a name is taken."""

    def __init__(self, answer_format: AnswerFormat | None, items: Iterable[Item]) -> None:
        self.answers = AnswerColumns.of(answer_format)
        self._format = answer_format
        self._fields = self.answers.renamed({column.name for column in (*_BEFORE, *_BEHIND)})
        taken = {column.name for column in (*_BEFORE, *_BEHIND, *self._fields)} | set(_KEYS)
        self._names = free_names({name: None for item in items for name in item.columns}, taken, "input")

    def make(self, item: Item, outcome: Outcome) -> Line:
        """The line of one row; `answer` is the value of an answer in a format, None if it failed."""
        head: Line = {"id": item.id, "images": list(item.images), "question": item.question}
        head |= {self._names[name]: to_json(value) for name, value in item.columns.items()}
        try:
            if isinstance(outcome, Phi3VError):
                raise outcome
            answer = self._read(outcome.text)
        except Phi3VError as exc:
            error = {"error": str(exc), "error_type": type(exc).__name__}
            return head | dict.fromkeys(_ANSWER) | {"notes": []} | error
        return head | {
            "answer": answer,
            "finish_reason": outcome.finish_reason,
            "usage": asdict(outcome.usage),
            "timings": asdict(outcome.timings) | {"ttft_s": outcome.timings.ttft_s},
            "notes": list(outcome.notes),
            "error": None,
            "error_type": None,
        }

    def _read(self, text: str) -> Any:
        """An answer's value, once it is sure to fit its columns. Raises AnswerError."""
        value = text if self._format is None else self._format.read(text)
        self.answers.split(value)
        return value

    def columns(self, lines: Iterable[Line]) -> tuple[Column, ...]:
        """All columns of the table of these lines."""
        return (*_BEFORE, *_carried_columns(lines), *self._fields, *_BEHIND)

    def rows(self, lines: Iterable[Line], columns: Collection[Column]) -> Iterator[dict[str, Any]]:
        """The lines as cells, by column."""
        fields = [column.name for column in self._fields]
        for line in lines:
            flat = {**line, **(line["usage"] or {}), **(line["timings"] or {})}
            flat |= dict.fromkeys(fields)
            if line["error"] is None:
                flat |= zip(fields, self.answers.split(line["answer"]).values(), strict=True)
            yield {c.name: flat[c.name] if c.name in fields else c.read(flat.get(c.name)) for c in columns}


def to_json(value: Any) -> Any:
    """A cell of an input table as JSON has it: bytes become base64, dates and decimals their text, NaN null."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): to_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither NaN nor infinity
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _carried_columns(lines: Iterable[Line]) -> list[Column]:
    """The input's own columns, in the order in which they appear: of one type each, "json" where values differ."""
    types: dict[str, set[ColumnType]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in _KEYS:
                types.setdefault(name, set()).update(() if value is None else (type_of(value),))
    return [Column(name, common_type(found) if found else "string") for name, found in types.items()]
