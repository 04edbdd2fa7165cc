"""The external data file of one graph: tensors go to disk the moment they are made, none is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .matrix import Matrix
from .quantize import BlockQuantization, quantize_rows

# Large tensors start on a memory-mapping boundary of every system; small ones on a cache line.
_LARGE, _LARGE_ALIGNMENT, _ALIGNMENT = 1 << 20, 1 << 16, 64


class WeightFile:
    """Appends tensors to a file and hands out the references that a graph stores instead of values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, values: npt.NDArray[Any]) -> ir.ExternalTensor:
        """Append one tensor."""
        values = np.ascontiguousarray(values)
        offset = self._align(values.nbytes)
        self._file.write(values.data)
        dtype = ir.DataType.from_numpy(values.dtype)
        return self._reference(name, dtype, values.shape, offset, values.nbytes)

    def add_quantized(
        self, name: str, matrix: Matrix, quantization: BlockQuantization, scale_dtype: npt.DTypeLike
    ) -> tuple[ir.ExternalTensor, ir.ExternalTensor]:
        """Quantise a matrix piece by piece; append its packed bytes and its scales."""
        shape = quantization.packed_shape(matrix.rows, matrix.columns)
        size = int(np.prod(shape))
        offset = self._align(size)
        scales = []
        for chunk in matrix.chunks():
            packed, scale = quantize_rows(chunk, quantization)
            self._file.write(packed.data)
            scales.append(scale)
        weight = self._reference(f"{name}.qweight", ir.DataType.UINT8, shape, offset, size)
        return weight, self.add(f"{name}.scales", np.concatenate(scales).astype(scale_dtype))

    def _align(self, nbytes: int) -> int:
        alignment = _LARGE_ALIGNMENT if nbytes >= _LARGE else _ALIGNMENT
        offset = self._file.tell()
        self._file.write(bytes(-offset % alignment))
        return self._file.tell()

    def _reference(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], offset: int, nbytes: int
    ) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            self.path.name, offset, nbytes, dtype, shape=ir.Shape(shape), name=name, base_dir=self.path.parent
        )
