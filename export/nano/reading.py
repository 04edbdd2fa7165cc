"""Dense reading, the tower's own school: windows of pages and of the jobs' pictures, every patch labelled."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from ..dims import CROP, PATCHES
from .canvas import PATCH, Picture, label_grid
from .charts import chart_sample
from .covers import cover_sample
from .pages import page
from .scenes import scene_sample
from .strips import BOOK, READ, book_strip, line_strip

SIDE = 8
"""Patches along a window's side."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Windows and their labels, and the place in the position table they are given."""

    pixels: Tensor
    characters: Tensor
    objects: Tensor
    colours: Tensor
    row: int
    column: int


def draw_reading(random: Random, pictures: int = 5, windows: int = 16) -> Reading:
    """`windows` from each of some fresh pictures, cut at any pixel."""
    cuts = []
    for _ in range(pictures):
        picture = _picture(random)
        for _ in range(windows):
            left, top = (random.randint(0, CROP - SIDE * PATCH) for _ in range(2))
            cuts.append(_cut(picture, left, top))
    pixels, characters, objects, colours = (torch.from_numpy(np.stack(part)) for part in zip(*cuts, strict=True))
    row, column = (random.randint(0, PATCHES - SIDE) for _ in range(2))
    return Reading(pixels, characters.long(), objects.long(), colours.long(), row, column)


def _picture(random: Random) -> Picture:
    kind = random.random()
    if kind < 0.7:
        return page(random)
    if kind < 0.82:
        return cover_sample(random).pictures[0]
    if kind < 0.92:
        return chart_sample(random).pictures[0]
    if kind < 0.95:
        return scene_sample(random).pictures[0]
    strip = line_strip(random, 5, READ[0]) if kind < 0.97 else book_strip(random, 4, BOOK[0])
    return strip.pictures[0]


def _cut(picture: Picture, left: int, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = SIDE * PATCH
    pixels = picture.pixels[top : top + size, left : left + size]
    characters = label_grid(picture.characters, SIDE, SIDE, left, top)
    rows = (top + PATCH // 2 + PATCH * np.arange(SIDE)) // PATCH
    columns = (left + PATCH // 2 + PATCH * np.arange(SIDE)) // PATCH
    grid = np.ix_(rows, columns)
    return pixels, characters, picture.objects[grid], picture.colours[grid]
