"""Symmetric round-to-nearest quantisation in blocks, with the kernel onnxruntime's own quantiser uses.

The layout is that of `com.microsoft.MatMulNBits`: for a weight [N, K] the packed bytes are [N, K/block, block*bits/8]
and there is one float32 scale a block, [N, K/block].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class BlockQuantization:
    """How MatMul weights are stored: `bits` 4 or 8, one scale per `block_size` values along K.

    `accuracy_level` is MatMulNBits' own: 4 lets the CPU multiply in int8, 0 leaves the choice to the kernel.
    """

    bits: int = 4
    block_size: int = 32
    accuracy_level: int = 4

    def blocks(self, columns: int) -> int:
        """Blocks in a row of `columns` values."""
        return -(-columns // self.block_size)

    def packed_shape(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Shape of the packed bytes of a [rows, columns] weight."""
        return rows, self.blocks(columns), self.block_size * self.bits // 8


def quantize_rows(
    weight: npt.NDArray[np.float32], quantization: BlockQuantization
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Quantise a weight [N, K] -> packed bytes and scales, in MatMulNBits' layout."""
    from onnxruntime.capi import _pybind_state as kernels

    rows, columns = weight.shape
    block = quantization.block_size
    padded = quantization.blocks(columns) * block
    # The kernel wants [K, N] with K a multiple of the block; zeros quantise to zeros.
    transposed = np.zeros((padded, rows), dtype=np.float32)
    transposed[:columns] = weight.T
    packed = np.zeros(quantization.packed_shape(rows, columns), dtype=np.uint8)
    scales = np.zeros((rows, quantization.blocks(columns)), dtype=np.float32)
    zero_points = np.zeros((rows, -(-quantization.blocks(columns) * quantization.bits // 8)), dtype=np.uint8)
    kernel = kernels.quantize_matmul_4bits if quantization.bits == 4 else kernels.quantize_matmul_8bits
    kernel(packed, transposed, scales, zero_points, block, rows, columns, True)
    return packed, scales


def dequantize_rows(
    packed: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32], quantization: BlockQuantization, columns: int
) -> npt.NDArray[np.float32]:
    """The weight [N, K] that MatMulNBits computes with; the inverse of `quantize_rows` up to rounding."""
    rows = packed.shape[0]
    if quantization.bits == 4:
        values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, -1, quantization.block_size)
    else:
        values = packed.reshape(rows, -1, quantization.block_size)
    centred = values.astype(np.float32) - (1 << (quantization.bits - 1))
    scaled: npt.NDArray[np.float32] = centred * scales[:, :, None]
    return scaled.reshape(rows, -1)[:, :columns]
