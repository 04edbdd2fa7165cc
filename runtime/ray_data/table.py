"""What a batch becomes: its own columns, and the answers under types that are the same in every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependencyError, Phi3VError
from ..machine.install import install_line
from ..structured.columns import AnswerColumns, Column, arrow_type, free_names
from .rows import Rows

if TYPE_CHECKING:
    import pyarrow

    from ..answer_format import AnswerFormat
    from ..batch import Outcome

_BEHIND = (Column("finish_reason", "string"), Column("error", "string"))
_KEPT = ("id", "image", "images", "question")
"""Columns of the input that keep their names."""


class TableMaker:
    """Makes tables of outcomes in one answer format. Raises MissingDependencyError without pyarrow."""

    def __init__(self, answer_format: AnswerFormat | None) -> None:
        try:
            import pyarrow
        except ImportError as exc:
            raise MissingDependencyError(f"Phi3Vision needs pyarrow; run: {install_line('ray')}") from exc
        self._arrow: Any = pyarrow
        self._format = answer_format
        self._answers = AnswerColumns.of(answer_format)
        self._columns = (*self._answers.renamed({*_KEPT, *(column.name for column in _BEHIND)}), *_BEHIND)

    def make(self, rows: Rows, outcomes: list[Outcome], *, keep_images: bool) -> pyarrow.Table:
        """The table of a batch."""
        carried = rows.carried(keep_images=keep_images)
        names = free_names(carried, {column.name for column in self._columns} - {*_KEPT}, "input")
        table = {names[name]: self._as_arrow(array) for name, array in carried.items()}
        cells = [self._cells(outcome) for outcome in outcomes]
        for place, column in enumerate(self._columns):
            values = [row[place] for row in cells]
            table[column.name] = self._arrow.array(values, type=arrow_type(column))
        return self._arrow.table(table)

    def _cells(self, outcome: Outcome) -> list[Any]:
        try:
            if isinstance(outcome, Phi3VError):
                raise outcome
            value = outcome.text if self._format is None else self._format.read(outcome.text)
            return [*self._answers.split(value).values(), outcome.finish_reason, None]
        except Phi3VError as exc:
            return [None] * (len(self._columns) - 1) + [str(exc)]

    def _as_arrow(self, array: Any) -> Any:
        if isinstance(array, np.ndarray) and array.ndim > 1:
            return self._arrow.array(array.tolist())
        return array if hasattr(array, "to_pylist") else self._arrow.array(list(array), from_pandas=True)
