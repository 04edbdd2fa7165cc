"""A weight matrix that still lies in the checkpoint, read in pieces small enough to forget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .checkpoint import Checkpoint

_CHUNK_VALUES = 16 * 1024 * 1024


class WeightRows(Protocol):
    """A weight [rows, columns] (out, in) that is read in pieces."""

    @property
    def rows(self) -> int:
        """Output features."""

    @property
    def columns(self) -> int:
        """Input features."""

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """The rows in order, float32."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of one or more checkpoint tensors, one under the other: a weight [rows, columns] (out, in).

    `parts` holds (tensor name, first row, row after the last).
    """

    checkpoint: Checkpoint
    parts: tuple[tuple[str, int, int], ...]

    @classmethod
    def whole(cls, checkpoint: Checkpoint, *names: str) -> Matrix:
        """Whole tensors stacked along the rows."""
        return cls(checkpoint, tuple((name, 0, checkpoint.tensors[name].shape[0]) for name in names))

    @classmethod
    def slice(cls, checkpoint: Checkpoint, name: str, first: int, last: int) -> Matrix:
        """Some rows of a fused tensor."""
        return cls(checkpoint, ((name, first, last),))

    @property
    def rows(self) -> int:
        """Output features."""
        return sum(last - first for _, first, last in self.parts)

    @property
    def columns(self) -> int:
        """Input features."""
        return self.checkpoint.tensors[self.parts[0][0]].shape[1]

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """The rows in order, float32, at most 64 MiB at a time."""
        step = max(1, _CHUNK_VALUES // self.columns)
        for name, first, last in self.parts:
            for begin in range(first, last, step):
                yield self.checkpoint.float32(name, slice(begin, min(begin + step, last)))

    def transposed(self, dtype: npt.DTypeLike) -> npt.NDArray[np.float32]:
        """The weight as [columns, rows], for a plain MatMul."""
        out = np.empty((self.columns, self.rows), dtype=dtype)
        begin = 0
        for chunk in self.chunks():
            out[:, begin : begin + len(chunk)] = chunk.T
            begin += len(chunk)
        return out
