"""From samples to tensors: which picture tokens a sequence keeps, its ids, positions, mask, targets and guides.

Questions about the same pictures share one prefix and do not see each other (a mask by branch), and a window of a
picture keeps the positions its tokens have in the whole: a strip is a full prompt with the blank rows left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..dims import PATCHES
from .canvas import PATCH, label_grid
from .comparison import comparison
from .network import CELLS, CellReader, Guides, Learner, Nano, Reader, normalise
from .samples import VERDICT, Sample
from .vocabulary import IMAGE_TOKENS, VERDICT_IDS, VOCABULARY, Vocabulary

_ROW = CELLS + 1
_GLOBAL = CELLS * _ROW + 1
_NONE = -1
_IGNORED = -100
_VERDICT_WEIGHT = 5.0
"""The verdict on a pair is one token of many."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Cell rows `first` to `first + rows` of every picture, as sub-crop, as global crop, or as both."""

    first: int = 0
    rows: int = CELLS
    sub: bool = True
    whole: bool = True

    @property
    def slots(self) -> Ints:
        """Numbers, within a picture's 313 slots, of the tokens that are kept."""
        cells = np.arange(self.first * _ROW, (self.first + self.rows) * _ROW)
        between = np.array([_GLOBAL - 1]) if self.sub and self.whole else np.array([], dtype=np.int64)
        kept = [cells] * self.sub + [between] + [cells + _GLOBAL] * self.whole
        return np.concatenate(kept).astype(np.int64)


FULL = Window()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Tensors of samples with the same number of pictures and the same window.

    `learned` has, sample by sample and turn by turn, the number of tokens that are; `blank` says that the pictures show
    nothing to learn from.
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

    def add(self, token: int, position: int, branch: int, cell: int = _NONE) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.branches.append(branch)
        self.targets.append(_IGNORED)
        self.cells.append(cell)
        for looked_for in (self.current, self.following, self.twin, self.odd):
            looked_for.append(_NONE)

    @property
    def learned(self) -> list[int]:
        """The number of tokens that are, branch by branch."""
        pairs = zip(self.branches, self.targets, strict=True)
        return list(Counter(branch for branch, target in pairs if target != _IGNORED).values())


def pack(samples: Sequence[Sample], vocabulary: Vocabulary, window: Window = FULL) -> Batch:
    """Lay out samples; all must have the same number of pictures."""
    rows = [_row(sample, vocabulary, window) for sample in samples]
    columns = {name: _padded([getattr(row, name) for row in rows], fill) for name, fill in _FILLS.items()}
    pictures = [picture for sample in samples for picture in sample.pictures]
    top, bottom = 2 * window.first, 2 * (window.first + window.rows)
    pixels = np.stack([picture.pixels[top * PATCH : bottom * PATCH] for picture in pictures])
    labels = [label_grid(p.characters, bottom - top, PATCHES, top=top * PATCH) for p in pictures]
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
    "targets": _IGNORED,
    "cells": _NONE,
    "current": _NONE,
    "following": _NONE,
    "twin": _NONE,
    "odd": _NONE,
}


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)


def _row(sample: Sample, vocabulary: Vocabulary, window: Window) -> _Row:
    row = _Row()
    count = len(sample.pictures)
    end = _add_pictures(row, vocabulary.prompt(sample.turns[0].question, count), window)
    for branch, turn in enumerate(sample.turns, start=1):
        question = vocabulary.prompt(turn.question, count)[end:]
        answer = vocabulary.answer(turn.answer)
        sources = [_NONE if place is None else place[0] * CELLS + place[1] for place in answer.sources]
        for offset, token in enumerate((*question, *answer.ids[:-1])):
            row.add(token, end + offset, branch)
        length = len(answer.ids)
        row.targets[-length:] = [_IGNORED if turn.job == VERDICT and i not in VERDICT_IDS else i for i in answer.ids]
        row.following[-length:] = sources
        row.current[-length:] = [_NONE, *sources[:-1]]
        begins = len(row.ids) - length + 1
        for looked_for, places in zip((row.twin, row.odd), comparison(answer.ids), strict=True):
            for query, key in places.items():
                looked_for[begins + query] = begins + key
    return row


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
            line, column = divmod(slot - _GLOBAL if slot >= _GLOBAL else slot, _ROW)
            inside = column < CELLS and slot != _GLOBAL - 1
            row.add(token, index, 0, ((-token - 1) * CELLS + line) * CELLS + column if inside else _NONE)
        seen[token] = slot + 1
    assert all(count == IMAGE_TOKENS for token, count in seen.items() if token < 0)
    return end


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one pass over a batch gives: the losses, and which answer tokens came out right."""

    answer: Tensor
    guide: Tensor
    cells: Tensor
    patches: Tensor
    right: Tensor
    read: Tensor
    """[2]: characters read right by the tower's reader, characters there are."""


def run(learner: Learner, batch: Batch, *, tower: bool, guided: bool, dense: bool) -> Outcome:
    """One forward pass.

    `tower` lets gradients into the tower, `guided` computes the attention guides, `dense` reads every patch. Of blank
    pictures nothing is learned.
    """
    nano, window = learner.nano, batch.window
    zero = batch.pixels.new_zeros((), dtype=torch.float32)
    with torch.set_grad_enabled(tower and not batch.blank and torch.is_grad_enabled()):
        features = nano.tower(normalise(batch.pixels), row=2 * window.first)
        patches, read = (
            patch_loss(learner.reader, features, batch.characters, batch.objects, batch.colours)
            if dense and not batch.blank
            else (zero, zero.expand(2))
        )
    cells = nano.picture_tokens(features)
    guides = Guides(_guide_targets(batch), loss=cells.new_zeros(())) if guided else None
    hidden = nano(embed(nano, cells, batch), batch.positions, attention_mask(batch), guides)
    asked = batch.targets != _IGNORED
    logits = nano.lm_head(hidden[asked]).float()
    wanted = batch.targets[asked]
    return Outcome(
        answer=functional.cross_entropy(logits, wanted, _token_weights(logits.device)),
        guide=guides.loss if guides else cells.new_zeros(()),
        cells=zero if batch.blank else _cell_loss(learner.cell_reader, cells, batch),
        patches=patches,
        right=logits.argmax(-1) == wanted,
        read=read,
    )


@cache
def _token_weights(device: torch.device) -> Tensor:
    """What naming the difference counts, beside 1 for every other token."""
    weights = torch.ones(VOCABULARY, device=device)
    weights[list(VERDICT_IDS)] = _VERDICT_WEIGHT
    return weights


def embed(nano: Nano, cells: Tensor, batch: Batch) -> Tensor:
    """Token embeddings, with the pictures' cells in their slots."""
    embedded = nano.model.embed_tokens(batch.ids.clamp_min(0))
    lines = cells.flatten(1, 2)
    parts = [lines] * batch.window.sub
    if batch.window.sub and batch.window.whole:
        parts.append(nano.between_crops().expand(len(lines), 1, -1))
    parts += [lines] * batch.window.whole
    pictures = torch.cat(parts, dim=1).flatten(0, 1).to(embedded.dtype)
    filled: Tensor = embedded.masked_scatter((batch.ids < 0)[..., None], pictures)
    return filled


def attention_mask(batch: Batch) -> Tensor:
    """[B, L, L]: a token sees what stands before it in the shared prefix and in its own branch."""
    branches, length = batch.branches, batch.ids.shape[1]
    same = (branches[:, None, :] == branches[:, :, None]) | (branches[:, None, :] == 0)
    causal = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    return same & causal


def _guide_targets(batch: Batch) -> dict[tuple[int, int], Tensor]:
    """By layer and head: cells are looked for by what they show, tokens of the answer by where they stand."""
    places = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
    wanted = {
        (1, 0): (batch.cells, batch.current),
        (2, 0): (batch.cells, batch.following),
        (1, 1): (places, batch.twin),
        (2, 1): (places, batch.odd),
    }
    return {
        head: (keys[:, None, :] == sought[:, :, None]) & (sought >= 0)[:, :, None]
        for head, (keys, sought) in wanted.items()
        if (sought >= 0).any()
    }


def patch_loss(
    reader: Reader, features: Tensor, characters: Tensor, objects: Tensor, colours: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of what the reader says of every patch, and [2]: characters right, characters there are."""
    found = [logits.float() for logits in reader(features)]
    there = characters > 0
    right = (found[0].argmax(-1) == characters) & there
    losses = [
        functional.cross_entropy(logits.flatten(0, -2), wanted.flatten())
        for logits, wanted in zip(found, (characters, objects, colours), strict=True)
    ]
    return losses[0] + 0.1 * (losses[1] + losses[2]), torch.stack([right.sum(), there.sum()])


def _cell_loss(cell_reader: CellReader, cells: Tensor, batch: Batch) -> Tensor:
    """Blanks count little: most of a picture is blank."""
    characters, places, objects, colours = (logits.float() for logits in cell_reader(cells[:, :, :-1]))
    loss = _weighted(characters, _by_cell(batch.characters))
    loss = loss + 0.3 * _weighted(objects, _by_cell(batch.objects)) + 0.3 * _weighted(colours, _by_cell(batch.colours))
    count, rows = cells.shape[:2]
    lines, columns = (torch.arange(size, device=cells.device) for size in (rows, CELLS))
    grid = torch.stack(torch.meshgrid(lines + batch.window.first, columns, indexing="ij"), dim=-1)
    return loss + 0.2 * functional.cross_entropy(places.flatten(0, -2), grid.expand(count, -1, -1, -1).flatten())


def _by_cell(patches: Tensor) -> Tensor:
    """[N, rows, 24, ...] -> [N, rows/2, 12, values of its four patches]."""
    count, rows = patches.shape[:2]
    return patches.reshape(count, rows // 2, 2, CELLS, 2, -1).transpose(2, 3).reshape(count, rows // 2, CELLS, -1)


def _weighted(logits: Tensor, wanted: Tensor) -> Tensor:
    weights = torch.where(wanted > 0, 1.0, 0.1).flatten()
    losses = functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()
