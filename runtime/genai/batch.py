"""Several answers in one genai generator: a batch of rows, padded on the right.

genai places each row's keys and values by its own length, so padding behind a prompt is overwritten by its answer;
padding before it changes the answer. Rows cannot be removed: a row that has left is computed until all have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import hd
from ..backend import BatchRow, Generation, InTurn, ModelInputs
from ..errors import InferenceError
from ..models.folder import ModelDir
from ..tokenizer import Tokenizer
from .generation import GenaiGeneration
from .model import GenaiModel, force_tokens, mapped_errors

_HIDDEN_STATES = 32
"""Widths of the decoder that one prompt position takes in float32 while prefill runs."""
_PADDED_COPIES = 2
"""Copies of the padded pixels in memory: ours and genai's."""
_VISION_BYTES = 48 << 20
"""Bytes the published vision tower takes for a crop while it runs."""
_SAME = 0.2
"""Largest difference between a row's logits in a batch and alone, in standard deviations, that counts as rounding.
Another position's logits differ by more.
"""


class GenaiBatch:
    """Rows in one generator.

    The graph takes LongRoPE's factors for all rows at once, by the padded length. So rows on different sides of the
    switch never share a generator (the constructor refuses them), and when the padded length reaches the switch, the
    unfinished rows go on alone.
    """

    def __init__(self, model: GenaiModel, rows: Sequence[BatchRow]) -> None:
        self._model: GenaiModel | None = model
        self._rows = rows
        self._generated: dict[int, list[int]] = {number: [] for number in range(len(rows))}
        """Tokens of the rows that have not left."""
        folder = model.folder
        if len({folder.past_switch(len(row.inputs.input_ids)) for row in rows}) > 1:
            raise InferenceError(
                f"rows on both sides of the LongRoPE switch at {folder.original_context_length} cannot be one batch"
            )
        self._length = longest_prompt([row.inputs for row in rows])
        most = self._length + max(row.max_new_tokens for row in rows)
        self._limit = folder.stop_at_switch(self._length, most)
        self._generator: Any = None
        self._alone: InTurn | None = None

    def step(self) -> dict[int, int]:
        """The next token id of every row that has not left; past the switch, of one row at a time."""
        if self._model is None:
            raise InferenceError("this batch is closed; start a new one")
        self._model.check_process()
        if self._length == self._limit and self._alone is None:
            self._alone = self._split(self._model)
        if self._alone is not None:
            return self._alone.step()
        if self._generator is None:
            inputs = pad([row.inputs for row in self._rows], self._model.folder.pad_token_id)
            self._generator = self._model.new_generator(inputs, self._limit, len(self._rows))
        with mapped_errors("generation"):
            self._choose()
            self._generator.generate_next_token()
            tokens = self._generator.get_next_tokens()
        self._length += 1
        found = {row: int(tokens[row]) for row in self._generated}
        for row, token in found.items():
            self._generated[row].append(token)
        return found

    def leave(self, row: int) -> None:
        """This row is finished."""
        self._generated.pop(row, None)
        if self._alone is not None:
            self._alone.leave(row)

    def close(self) -> None:
        """Free the KV caches."""
        if self._alone is not None:
            self._alone.close()
        self._generator = self._model = None

    def _choose(self) -> None:
        """Leave genai one token to take in every row that is not simply greedy."""
        choosers = {row: self._rows[row].chooser for row in self._generated}
        choosing = {row: chooser for row, chooser in choosers.items() if not chooser.is_argmax}
        if choosing:
            logits = self._generator.get_logits()
            tokens = {row: chooser.choose(logits[row, -1]) for row, chooser in choosing.items()}
            force_tokens(self._generator, logits, tokens)

    def _split(self, model: GenaiModel) -> InTurn:
        self._generator = None  # free the batch's KV buffer before the first row allocates its own
        return InTurn((row, partial(self._resume, model, row)) for row in self._generated)

    def _resume(self, model: GenaiModel, number: int) -> Generation:
        """This row's generation, continuing after the tokens it generated in the batch."""
        row, generated = self._rows[number], self._generated[number]
        return GenaiGeneration(model, row.inputs, row.chooser, row.max_new_tokens, generated=generated)


def longest_prompt(rows: Sequence[ModelInputs]) -> int:
    """Tokens of the longest prompt, to which the others are padded."""
    return max(len(row.input_ids) for row in rows)


def pad(rows: Sequence[ModelInputs], pad_id: int) -> ModelInputs:
    """The rows as one: input_ids int32 [B, L] padded on the right, the images of all rows one after the other."""
    ids = np.full((len(rows), longest_prompt(rows)), pad_id, dtype=np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row.input_ids)] = row.input_ids
    pixels = [row.pixel_values for row in rows if row.pixel_values is not None]
    sizes = [row.image_sizes for row in rows if row.image_sizes is not None]
    if not pixels:
        return ModelInputs(ids, None, None, ())
    most = max(part.shape[1] for part in pixels)
    stacked = np.zeros((sum(map(len, pixels)), most, *pixels[0].shape[2:]), dtype=pixels[0].dtype)
    at = 0
    for part in pixels:
        stacked[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return ModelInputs(ids, stacked, np.concatenate(sizes), tuple(n for row in rows for n in row.image_tokens))


def batch_bytes(model: ModelDir, rows: Sequence[ModelInputs], max_new_tokens: int) -> int:
    """Most bytes a batch of these rows takes at once, beside the loaded model and the rows themselves.

    KV cache for the longest prompt and answer in every row; activations and logits of every prompt position; the
    images, padded, and what the vision tower makes of the real crops. The factors are measured, on the safe side.
    """
    longest = longest_prompt(rows)
    values = model.vocab_size + _HIDDEN_STATES * model.hidden_size
    tokens = len(rows) * (model.kv_bytes(longest + max_new_tokens) + longest * values * 4)
    padded = [row.pixel_values.shape[:2] for row in rows if row.pixel_values is not None]
    slots = sum(int(images) for images, _ in padded) * max((int(crops) for _, crops in padded), default=0)
    sizes = [size for row in rows if row.image_sizes is not None for size in row.image_sizes.tolist()]
    crops = int(sum(1 + height * width // hd.CROP**2 for height, width in sizes))
    return tokens + slots * _PADDED_COPIES * hd.CROP_BYTES + crops * _VISION_BYTES


def ignores_padding(model: GenaiModel, tokenizer: Tokenizer) -> bool:
    """Whether a padded row gets the logits of a run of its own, in prefill and after it.

    Not if the graph keeps the last position's logits only (an option of the official builder): then a padded row would
    be answered from its padding.
    """
    words = tokenizer.encode_text("one two three four five six")
    long, short = (ModelInputs(np.array(ids, dtype=np.int32), None, None, ()) for ids in (words, words[:2]))
    alone = _two_steps(model, short, 1, words[-1])
    padded = _two_steps(model, pad([long, short], model.folder.pad_token_id), 2, words[-1])
    return bool(np.abs(alone - padded).max() < _SAME * alone.std())


def _two_steps(model: GenaiModel, inputs: ModelInputs, rows: int, token: int) -> npt.NDArray[np.float32]:
    """float32 [2, vocab]: the last row's logits behind the prompt, and with `token` behind that."""
    generator = model.new_generator(inputs, inputs.input_ids.shape[-1] + 2, rows)
    with mapped_errors("generation"):
        logits = np.array(generator.get_logits())
        first = logits[-1, -1].copy()
        force_tokens(generator, logits, dict.fromkeys(range(rows), token))
        generator.generate_next_token()
        return np.stack([first, np.array(generator.get_logits())[-1, -1]])
