"""Crops of larger pictures: how the tower sees them, one by one, and how they are put together again."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ...hd import CROP


def cut(grid: Tensor, zoom: int) -> Tensor:
    """[N, zoom * rows, zoom * columns, ...] -> [N * zoom * zoom, rows, columns, ...], crops in reading order."""
    count, rows, columns = grid.shape[0], grid.shape[1] // zoom, grid.shape[2] // zoom
    crops = grid.reshape(count, zoom, rows, zoom, columns, *grid.shape[3:]).transpose(2, 3)
    return crops.reshape(count * zoom * zoom, rows, columns, *grid.shape[3:])


def join(crops: Tensor, zoom: int) -> Tensor:
    """`cut`, undone."""
    count, (rows, columns) = crops.shape[0] // zoom**2, crops.shape[1:3]
    grid = crops.reshape(count, zoom, zoom, rows, columns, *crops.shape[3:]).transpose(2, 3)
    return grid.reshape(count, zoom * rows, zoom * columns, *crops.shape[3:])


def reduced(pixels: Tensor) -> Tensor:
    """The global crop [N, 3, 336, 336] of larger pictures, as the reference scales it."""
    return functional.interpolate(pixels, size=(CROP, CROP), mode="bicubic", align_corners=False)
