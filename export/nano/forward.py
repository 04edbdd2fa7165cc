"""One pass over a batch: what the network sees and answers, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from .batches import IGNORED, Batch
from .crops import cut, join, reduced
from .network import CELLS, CellReader, Guides, Learner, Nano, Reader, normalise
from .vocabulary import PHRASE_IDS, VERDICT_IDS, VOCABULARY

_VERDICT_WEIGHT = 5.0
"""The verdict on a pair is one token of many."""


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
        features = nano.tower(normalise(cut(batch.pixels, window.zoom)), row=2 * window.first)
        whole = nano.tower(reduced(normalise(batch.pixels))) if window.zoom > 1 else None
        patches, read = (
            patch_loss(learner.reader, features, *_labels(batch))
            if dense and not batch.blank
            else (zero, zero.expand(2))
        )
    cells = nano.picture_tokens(features)
    guides = Guides(_guide_targets(batch), loss=cells.new_zeros(())) if guided else None
    embedded = embed(nano, cells, batch) if whole is None else embed_crops(nano, features, whole, batch)
    hidden = nano(embedded, batch.positions, attention_mask(batch), guides)
    asked = batch.targets != IGNORED
    logits = without_phrases(nano.lm_head(hidden[asked]).float(), batch.spelled[asked] > 0)
    wanted = batch.targets[asked]
    return Outcome(
        answer=functional.cross_entropy(logits, wanted, _token_weights(logits.device)),
        guide=guides.loss if guides else cells.new_zeros(()),
        cells=zero if batch.blank else _cell_loss(learner.cell_reader, cells, batch),
        patches=patches,
        right=logits.argmax(-1) == wanted,
        read=read,
    )


def without_phrases(logits: Tensor, rows: Tensor) -> Tensor:
    """Logits without the phrases in some rows, as a mask over tokens leaves them when the text is one of choices."""
    phrases = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    phrases[list(PHRASE_IDS)] = True
    return logits.masked_fill(rows[:, None] & phrases, -1e9)


@cache
def _token_weights(device: torch.device) -> Tensor:
    """What naming the difference counts, beside 1 for every other token."""
    weights = torch.ones(VOCABULARY, device=device)
    weights[list(VERDICT_IDS)] = _VERDICT_WEIGHT
    return weights


def embed(nano: Nano, cells: Tensor, batch: Batch, whole: Tensor | None = None) -> Tensor:
    """Token embeddings, with the pictures' cells in their slots; `whole` are the global crop's, if they are others."""
    embedded = nano.model.embed_tokens(batch.ids.clamp_min(0))
    lines = cells.flatten(1, 2)
    all_lines = lines if whole is None else whole.flatten(1, 2)
    parts = [lines] * batch.window.sub
    if batch.window.sub and batch.window.whole:
        parts.append(nano.between_crops().expand(len(lines), 1, -1))
    parts += [all_lines] * batch.window.whole
    pictures = torch.cat(parts, dim=1).flatten(0, 1).to(embedded.dtype)
    filled: Tensor = embedded.masked_scatter((batch.ids < 0)[..., None], pictures)
    return filled


def embed_crops(nano: Nano, features: Tensor, whole: Tensor, batch: Batch) -> Tensor:
    """The same for pictures of several crops: their features, put together, and those of the global crops."""
    together = nano.picture_tokens(join(features, batch.window.zoom))
    return embed(nano, together, batch, nano.picture_tokens(whole))


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
    """Blanks count little: most of a picture is blank. `cells` are crop by crop."""
    characters, places, objects, colours = (logits.float() for logits in cell_reader(cells[:, :, :-1]))
    wanted = [_by_cell(labels) for labels in _labels(batch)]
    loss = _weighted(characters, wanted[0])
    loss = loss + 0.3 * _weighted(objects, wanted[1]) + 0.3 * _weighted(colours, wanted[2])
    count, rows = cells.shape[:2]
    lines, columns = (torch.arange(size, device=cells.device) for size in (rows, CELLS))
    grid = torch.stack(torch.meshgrid(lines + batch.window.first, columns, indexing="ij"), dim=-1)
    return loss + 0.2 * functional.cross_entropy(places.flatten(0, -2), grid.expand(count, -1, -1, -1).flatten())


def _labels(batch: Batch) -> list[Tensor]:
    """What the patches show, crop by crop: characters, objects, colours."""
    return [cut(labels, batch.window.zoom) for labels in (batch.characters, batch.objects, batch.colours)]


def _by_cell(patches: Tensor) -> Tensor:
    """[N, rows, 24, ...] -> [N, rows/2, 12, values of its four patches]."""
    count, rows = patches.shape[:2]
    return patches.reshape(count, rows // 2, 2, CELLS, 2, -1).transpose(2, 3).reshape(count, rows // 2, CELLS, -1)


def _weighted(logits: Tensor, wanted: Tensor) -> Tensor:
    weights = torch.where(wanted > 0, 1.0, 0.1).flatten()
    losses = functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()
