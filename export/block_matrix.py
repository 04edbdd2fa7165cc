"""A weight matrix as a model folder holds it: the 4 or 8 bits of a `MatMulNBits` node, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ..errors import ModelFolderError

_CHUNK_VALUES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """An initializer of a graph; its bytes lie in the graph or in a data file beside it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    file: Path | None
    offset: int
    raw: bytes

    @classmethod
    def of(cls, tensor: onnx.TensorProto, folder: Path) -> StoredTensor:
        """Find the bytes of an initializer of a graph in `folder`. Raises ModelFolderError for a place outside it."""
        dtype, shape = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tuple(tensor.dims)
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return cls(dtype, shape, None, 0, onnx.numpy_helper.to_array(tensor).tobytes())
        place = {entry.key: entry.value for entry in tensor.external_data}
        if Path(place["location"]).name != place["location"]:
            raise ModelFolderError(f"{folder} keeps {tensor.name} in {place['location']}; only its own files are read")
        return cls(dtype, shape, folder / place["location"], int(place.get("offset", 0)), b"")

    def read(self) -> npt.NDArray[Any]:
        """The values; those of a data file are mapped, not loaded."""
        if self.file is None:
            return np.frombuffer(self.raw, self.dtype).reshape(self.shape)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """A weight [rows, columns] (out, in) that is stored in blocks of `block_size` values with `bits` each."""

    bits: int
    block_size: int
    rows: int
    columns: int
    packed: StoredTensor
    scales: StoredTensor
    zero_points: StoredTensor | None

    @classmethod
    def of(cls, node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], folder: Path) -> BlockMatrix | None:
        """The matrix of a MatMulNBits node; None where its weights are no initializers, or are reordered (g_idx)."""
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        packed, scales, zero_points, order = [*node.input[1:], "", "", ""][:4]
        if order or packed not in tensors or scales not in tensors or (zero_points and zero_points not in tensors):
            return None
        stored = [StoredTensor.of(tensors[name], folder) if name else None for name in (packed, scales, zero_points)]
        assert stored[0] is not None
        assert stored[1] is not None
        if stored[2] is not None and stored[2].dtype != np.uint8:
            return None
        return cls(sizes.get("bits", 4), sizes["block_size"], sizes["N"], sizes["K"], stored[0], stored[1], stored[2])

    def chunks(self) -> Iterator[npt.NDArray[np.float32]]:
        """The rows in order, float32 as the kernel computes with them, at most 64 MiB at a time."""
        step = max(1, _CHUNK_VALUES // self.columns)
        for begin in range(0, self.rows, step):
            yield self.read_rows(np.arange(begin, min(begin + step, self.rows)))

    def read_rows(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Some rows, float32 [len(rows), columns]."""
        blocks = -(-self.columns // self.block_size)
        packed = self.packed.read().reshape(self.rows, -1)[rows]
        values = _unpack(packed, self.bits).reshape(len(rows), blocks, self.block_size).astype(np.float32)
        scales = self.scales.read().reshape(self.rows, blocks)[rows].astype(np.float32)
        zeros = np.full((len(rows), blocks), 1 << (self.bits - 1), dtype=np.float32)
        if self.zero_points is not None:
            zeros[:] = _unpack(self.zero_points.read().reshape(self.rows, -1)[rows], self.bits)[:, :blocks]
        whole = (values - zeros[:, :, np.newaxis]) * scales[:, :, np.newaxis]
        return np.ascontiguousarray(whole.reshape(len(rows), -1)[:, : self.columns])

    def rounding_loss(self, rows: npt.NDArray[np.intp]) -> float:
        """What the blocks lost already, estimated: relative error of rounding to the nearest step, from the scales.

        A rounding error is uniform within a step, so its variance is a twelfth of the step squared.
        """
        scales = self.scales.read().reshape(self.rows, -1)[rows].astype(np.float64)
        weights = self.read_rows(rows)
        total = float(np.square(weights, dtype=np.float64).mean())
        return float(np.sqrt(np.square(scales).mean() / 12 / total)) if total else 0.0


def _unpack(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """The integers in rows of bytes; of 4 bits, the lower half of a byte first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
