"""From samples to tensors: which picture tokens a sequence keeps, its ids, positions, mask, targets and guides.

Questions about the same pictures share one prefix and do not see each other (a mask by branch), and a window of a
picture keeps the positions its tokens have in the whole: a strip is a full prompt with the blank rows left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..dims import PATCHES
from .canvas import PATCH, label_grid
from .comparison import comparison
from .network import CELLS
from .samples import GIVEN, SPELLED, VERDICT, Sample, Turn
from .vocabulary import IMAGE_TOKENS, VERDICT_IDS, Vocabulary

_NONE = -1
IGNORED = -100
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Cell rows `first` to `first + rows` of every picture, as sub-crop, as global crop, or as both.

    A `zoom` of 2 is four sub-crops; then the window is the whole picture.
    """

    first: int = 0
    rows: int = CELLS
    sub: bool = True
    whole: bool = True
    zoom: int = 1

    @property
    def side(self) -> int:
        """Cells along a side of the sub-crops together."""
        return CELLS * self.zoom

    @property
    def begin_whole(self) -> int:
        """Number of the global crop's first slot: a separator ends every row of the sub-crops, one stands between."""
        return self.side * (self.side + 1) + 1

    @property
    def slots(self) -> Ints:
        """Numbers, within a picture's slots, of the tokens that are kept."""
        kept = [np.array([], dtype=np.int64)]
        if self.sub:
            kept.append(self._lines(self.side + 1, self.zoom))
        if self.sub and self.whole:
            kept.append(np.array([self.begin_whole - 1]))
        if self.whole:
            kept.append(self.begin_whole + self._lines(CELLS + 1, 1))
        return np.concatenate(kept).astype(np.int64)

    def _lines(self, length: int, zoom: int) -> Ints:
        return np.arange(self.first * zoom * length, (self.first + self.rows) * zoom * length)

    def place(self, slot: int) -> tuple[int, int] | None:
        """Row and column of the cell in a slot, None for a separator and, where sub-crops show more, a global cell."""
        if slot >= self.begin_whole:
            row, column = divmod(slot - self.begin_whole, CELLS + 1)
            return (row, column) if column < CELLS and self.zoom == 1 else None
        row, column = divmod(slot, self.side + 1)
        return (row, column) if column < self.side and row < self.side else None


FULL, SHARP = Window(), Window(zoom=2)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Tensors of samples with the same number of pictures and the same window.

    `learned` has, sample by sample and turn by turn, the number of tokens that are; `blank` says that the pictures show
    nothing to learn from. `spelled` is 1 where an answer begins as if there were no phrases.
    """

    window: Window
    pixels: Tensor
    characters: Tensor
    objects: Tensor
    colours: Tensor
    ids: Tensor
    positions: Tensor
    branches: Tensor
    targets: Tensor
    cells: Tensor
    current: Tensor
    following: Tensor
    twin: Tensor
    odd: Tensor
    spelled: Tensor
    learned: list[int]
    blank: bool

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in self.__dataclass_fields__
            if isinstance(getattr(self, name), Tensor)
        }
        return replace(self, **moved)


@dataclass(slots=True)
class _Row:
    """One sequence in the making, token by token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    current: list[int] = field(default_factory=list)
    following: list[int] = field(default_factory=list)
    twin: list[int] = field(default_factory=list)
    odd: list[int] = field(default_factory=list)
    spelled: list[int] = field(default_factory=list)

    def add(self, token: int, position: int, branch: int, cell: int = _NONE) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.branches.append(branch)
        self.targets.append(IGNORED)
        self.cells.append(cell)
        for looked_for in (self.current, self.following, self.twin, self.odd):
            looked_for.append(_NONE)
        self.spelled.append(0)

    @property
    def learned(self) -> list[int]:
        """The number of tokens that are, branch by branch."""
        pairs = zip(self.branches, self.targets, strict=True)
        return list(Counter(branch for branch, target in pairs if target != IGNORED).values())


def pack(samples: Sequence[Sample], vocabulary: Vocabulary, window: Window = FULL) -> Batch:
    """Lay out samples; all must have the same number of pictures, and pictures the window's zoom."""
    rows = [_row(sample, vocabulary, window) for sample in samples]
    columns = {name: _padded([getattr(row, name) for row in rows], fill) for name, fill in _FILLS.items()}
    pictures = [picture for sample in samples for picture in sample.pictures]
    assert all(picture.zoom == window.zoom for picture in pictures)
    top, bottom = (2 * window.zoom * row for row in (window.first, window.first + window.rows))
    pixels = np.stack([picture.pixels[top * PATCH : bottom * PATCH] for picture in pictures])
    labels = [label_grid(p.characters, bottom - top, PATCHES * p.zoom, top=top * PATCH) for p in pictures]
    return Batch(
        window=window,
        pixels=torch.from_numpy(pixels),
        characters=torch.from_numpy(np.stack(labels)).long(),
        objects=torch.from_numpy(np.stack([picture.objects[top:bottom] for picture in pictures])).long(),
        colours=torch.from_numpy(np.stack([picture.colours[top:bottom] for picture in pictures])).long(),
        learned=[count for row in rows for count in row.learned],
        blank=all(turn.job == VERDICT for sample in samples for turn in sample.turns),
        **columns,
    )


_FILLS = {
    "ids": 0,
    "positions": 0,
    "branches": _NONE,
    "targets": IGNORED,
    "cells": _NONE,
    "current": _NONE,
    "following": _NONE,
    "twin": _NONE,
    "odd": _NONE,
    "spelled": 0,
}


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)


def _row(sample: Sample, vocabulary: Vocabulary, window: Window) -> _Row:
    row = _Row()
    count = len(sample.pictures)
    end = _add_pictures(row, vocabulary.prompt(sample.turns[0].question, count, window.zoom), window)
    for branch, turn in enumerate(sample.turns, start=1):
        question = vocabulary.prompt(turn.question, count, window.zoom)[end:]
        answer = vocabulary.answer(turn.answer)
        sources = [_NONE if place is None else place[0] * window.side + place[1] for place in answer.sources]
        for offset, token in enumerate((*question, *answer.ids[:-1])):
            row.add(token, end + offset, branch)
        length = len(answer.ids)
        row.targets[-length:] = _targets(turn, answer.ids, vocabulary)
        row.spelled[-length] = int(turn.opening == SPELLED)
        row.following[-length:] = sources
        row.current[-length:] = [_NONE, *sources[:-1]]
        begins = len(row.ids) - length + 1
        for looked_for, places in zip((row.twin, row.odd), comparison(answer.ids), strict=True):
            for query, key in places.items():
                looked_for[begins + query] = begins + key
    return row


def _targets(turn: Turn, ids: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """What is learned of an answer: all of it, unless it is a bare verdict or its opening is given."""
    if turn.job == VERDICT:
        return [token if token in VERDICT_IDS else IGNORED for token in ids]
    given = len(vocabulary.answer(turn.answer[:1]).ids) - 1 if turn.opening == GIVEN else 0
    return [IGNORED] * given + list(ids[given:])


def _add_pictures(row: _Row, prompt: list[int], window: Window) -> int:
    """The prompt up to its last slot, without the slots outside the window; returns where the text goes on."""
    kept = set(window.slots.tolist())
    end = max(index for index, token in enumerate(prompt) if token < 0) + 1
    seen: dict[int, int] = {}
    for index, token in enumerate(prompt[:end]):
        slot = seen.get(token, 0)
        if token >= 0:
            row.add(token, index, 0)
        elif slot in kept:
            place = window.place(slot)
            picture = (-token - 1) * window.side**2
            row.add(token, index, 0, _NONE if place is None else picture + place[0] * window.side + place[1])
        seen[token] = slot + 1
    assert all(count == IMAGE_TOKENS[window.zoom] for token, count in seen.items() if token < 0)
    return end
