"""Products in row-wise int8: what a long input is multiplied with on a CPU.

One scale a row of the input (a token), max|x| / 127, and one a column of the output, max|w| / 127; between them runs
ONNX Runtime's integer GEMM, which on many rows is three and more times as fast as its 4-bit kernel. A few columns of
the input that stand out, as trained models have them, would spoil the rows' scales: these are multiplied in float32
beside it. Operators: `QuantizeLinear` of ONNX, `MatMulIntegerToFloat` of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .matrix import WeightRows

_MICROSOFT = "com.microsoft"
V = TypeVar("V", bound=Hashable)

_LEAST = np.float32(1e-12)
"""The least maximum of a row: one of zeros divides by it."""


class Nodes(Protocol[V]):
    """What writes nodes: a graph of ours, or genai's builder behind an adapter. `V` is what it calls a value."""

    def op(self, kind: str, *inputs: V, domain: str = "", **attributes: Any) -> V:
        """Add a node with one output."""
        ...

    def constant(self, values: npt.NDArray[Any] | np.generic) -> V:
        """A small constant; the same for equal values."""
        ...

    def stored(self, name: str, values: npt.NDArray[Any]) -> V:
        """A weight in the type it comes in."""
        ...


@dataclass(frozen=True, slots=True)
class RowWeights:
    """A matrix for row-wise int8: `values` int8 [columns, rows], `scales` float32 [rows].

    `beside` float32 [outliers, rows] are the weights of the outlier columns; theirs in `values` are zero.
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    beside: npt.NDArray[np.float32]

    @classmethod
    def of(cls, matrix: WeightRows, outliers: tuple[int, ...] = ()) -> RowWeights:
        """Quantise a matrix [rows, columns], piece by piece."""
        values = np.empty((matrix.columns, matrix.rows), dtype=np.int8)
        scales = np.empty(matrix.rows, dtype=np.float32)
        beside = np.empty((len(outliers), matrix.rows), dtype=np.float32)
        begin = 0
        for chunk in matrix.chunks():
            part = slice(begin, begin + len(chunk))
            beside[:, part] = chunk[:, outliers].T
            rest = chunk.copy()
            rest[:, outliers] = 0
            scales[part] = np.maximum(np.abs(rest).max(axis=1), _LEAST) / 127
            values[:, part] = np.rint(rest / scales[part, np.newaxis]).T
            begin = part.stop
        return cls(values, scales, beside)


class RowProducts(Generic[V]):
    """Writes products into one graph. An input that several matrices read is quantised once."""

    def __init__(self, nodes: Nodes[V]) -> None:
        self._nodes = nodes
        self._quantised: dict[tuple[V, tuple[int, ...]], tuple[V, V]] = {}
        self._gathered: dict[tuple[V, tuple[int, ...]], V] = {}

    def write(self, x: V, name: str, matrix: WeightRows, outliers: tuple[int, ...] = ()) -> V:
        """`x` [R, columns] float32 times the matrix: [R, rows] float32. `name` begins those of the weights."""
        nodes, weights = self._nodes, RowWeights.of(matrix, outliers)
        values, scales = self._quantise(x, name, matrix.columns, outliers)
        whole = nodes.op(
            "MatMulIntegerToFloat",
            values,
            nodes.stored(f"{name}.int8", weights.values),
            nodes.constant(np.float32(1)),
            nodes.stored(f"{name}.int8_scales", weights.scales),
            nodes.constant(np.uint8(128)),
            nodes.constant(np.int8(0)),
            domain=_MICROSOFT,
        )
        product = nodes.op("Mul", whole, scales)
        if not outliers:
            return product
        beside = nodes.stored(f"{name}.beside", weights.beside)
        return nodes.op("Gemm", self._gather(x, outliers), beside, product)

    def _quantise(self, x: V, name: str, columns: int, outliers: tuple[int, ...]) -> tuple[V, V]:
        """(uint8 [R, columns] with the zero point 128, float32 [R, 1]): the rows and their scales."""
        if (x, outliers) in self._quantised:
            return self._quantised[x, outliers]
        nodes, last, rows = self._nodes, self._nodes.constant(np.array([-1])), x
        if outliers:
            mask = np.ones(columns, dtype=np.float32)
            mask[list(outliers)] = 0
            rows = nodes.op("Mul", x, nodes.stored(f"{name}.mask", mask))
        most = nodes.op("ReduceMax", rows, last, keepdims=1)
        least = nodes.op("Neg", nodes.op("ReduceMin", rows, last, keepdims=1))
        furthest = nodes.op("Max", most, least, nodes.constant(_LEAST))
        scales = nodes.op("Mul", furthest, nodes.constant(np.float32(1 / 127)))
        row_scales = nodes.op("Reshape", scales, last)
        zeros = nodes.op("Expand", nodes.constant(np.array([128], dtype=np.uint8)), nodes.op("Shape", row_scales))
        # Outlier columns of `x` saturate here, and meet weights of zero.
        self._quantised[x, outliers] = nodes.op("QuantizeLinear", x, row_scales, zeros, axis=0), scales
        return self._quantised[x, outliers]

    def _gather(self, x: V, outliers: tuple[int, ...]) -> V:
        if (x, outliers) not in self._gathered:
            index = self._nodes.constant(np.array(outliers))
            self._gathered[x, outliers] = self._nodes.op("Gather", x, index, axis=1)
        return self._gathered[x, outliers]
