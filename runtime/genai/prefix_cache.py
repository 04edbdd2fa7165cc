"""KV caches that are reused from one answer of a session to the next.

A generator whose sequence begins like the next prompt rewinds to the end of the shared prefix and prefills the rest.
Whatever does not fit exactly starts afresh: other images, the other side of the LongRoPE switch, too small a buffer.

For logits to be bit for bit those of a fresh run, every token must go through the same kernel as in that run. The int4
kernel takes tokens in fours, counted from the beginning of what is read; the rest of a prompt goes through another
kernel, and so does each generated token. Rounding activations to 8 bits then amplifies rounding differences: logits of
deviation 2.0 differed by 0.13 (10 random layers of width 512, AVX-512). So only whole groups of four are reused, and
generated tokens are read once more with the next prompt. If no group of four starts between the images and the
question, the last digits may differ.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backend import Generation, ModelInputs
from ..errors import InferenceError
from ..machine.memory import available_memory
from ..models.folder import ModelDir
from ..sampling import TokenChooser
from .generation import GenaiGeneration
from .model import GenaiModel, mapped_errors

_LEAST_ROOM = 512
_TILE = 4
"""Tokens that the int4 kernel takes at a time."""
_log = logging.getLogger("phi3v")


@dataclass(slots=True)
class _Kept:
    """A generator, and what must hold for its KV cache to be right for other inputs."""

    generator: Any
    images: ModelInputs
    """Shows what its images are; without their pixels where they have a key."""
    long: bool
    """Whether its positions were made with LongRoPE's long factors."""
    capacity: int
    read: int
    """Tokens at the beginning of its sequence that were read as a prompt."""

    def shared(self, ids: npt.NDArray[np.int32]) -> int:
        """How many of `ids` to reuse from the cache: whole groups of four, and all images if possible."""
        text = _after_images(ids)
        most = min(self.read, max(text, len(ids) - _TILE))
        differs = np.flatnonzero(np.asarray(self.generator.get_sequence(0))[:most] != ids[:most])
        same = int(differs[0]) if len(differs) else most
        return max(same - same % _TILE, min(text, same))


class PrefixCache:
    """The generators of one session, one after the other."""

    def __init__(self, model: GenaiModel) -> None:
        self.reused_tokens = 0
        self._model = model
        self._kept: _Kept | None = None
        self._lent: _Kept | None = None

    @property
    def kept_tokens(self) -> int:
        """Tokens the KV buffer has room for."""
        return self._kept.capacity if self._kept else 0

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """How many tokens of a prompt would not be read again if it were started now."""
        room = len(inputs.input_ids) + max_new_tokens
        return 0 if self._kept is None or self._model.closed else self._fitting(self._kept, inputs, room)

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """A generation that reuses what the kept cache and `inputs` share."""
        return GenaiGeneration(self._model, inputs, chooser, max_new_tokens, self._take, self._give_back)

    def close(self) -> None:
        """Free the KV cache."""
        self._kept = self._lent = None

    def _take(self, inputs: ModelInputs, max_length: int) -> Any:
        """A generator that has read `inputs` and has room for `max_length` tokens, kept or new."""
        self._lent, self._kept, self.reused_tokens = self._kept, None, 0
        if self._lent is None or self._model.closed or not self._rewind(self._lent, inputs, max_length):
            self._lent = None  # free the old KV buffer before the new one is allocated
            self._lent = self._fresh(inputs, max_length)
        return self._lent.generator

    def _give_back(self, generator: Any) -> None:
        if self._lent is not None and self._lent.generator is generator and self._model.rewinds:
            self._kept = self._lent
        self._lent = None

    def _rewind(self, kept: _Kept, inputs: ModelInputs, max_length: int) -> bool:
        """Whether `kept` now stands where `inputs` end."""
        ids = inputs.input_ids
        shared = self._fitting(kept, inputs, max_length)
        if not shared:
            return False
        try:
            with mapped_errors("rewinding"):
                kept.generator.rewind_to(shared)
                kept.generator.append_tokens(ids[shared:])
        except InferenceError as exc:
            _log.info("%s; the prompt is read anew", exc)  # by another generator: this one's state is unknown now
            return False
        kept.read, self.reused_tokens = len(ids), shared
        return True

    def _fitting(self, kept: _Kept, inputs: ModelInputs, max_length: int) -> int:
        """How many tokens of `inputs` to take from `kept`; 0 if it does not fit them."""
        ids = inputs.input_ids
        if (
            not kept.images.shows_same(inputs)
            or kept.long != self._model.folder.past_switch(len(ids))
            or kept.capacity < self._model.folder.stop_at_switch(len(ids), max_length)
        ):
            return 0
        shared = kept.shared(ids)
        return shared if shared >= max(1, _after_images(ids)) else 0  # images are read with the first tokens only

    def _fresh(self, inputs: ModelInputs, max_length: int) -> _Kept:
        folder, length = self._model.folder, len(inputs.input_ids)
        capacity = choose_capacity(folder, length, max_length) if self._model.rewinds else max_length
        generator = None
        if capacity > max_length:  # room to grow is optional: it may be too much when a bare buffer is not
            with contextlib.suppress(InferenceError):
                generator = self._model.new_generator(inputs, capacity)
        if generator is None:
            generator, capacity = self._model.new_generator(inputs, max_length), max_length
        images = inputs if inputs.images_key is None else replace(inputs, pixel_values=None)
        return _Kept(generator, images, folder.past_switch(length), capacity, read=length)


def choose_capacity(folder: ModelDir, length: int, max_length: int) -> int:
    """Tokens to make a KV buffer for when `max_length` are needed now and the conversation may grow.

    Half as much again and at least 512, from at most half of the memory that will be left, up to the context. While
    `length` is below the LongRoPE switch, no more than up to the switch: past it, the cache is made anew anyway.
    """
    memory = available_memory()
    extra = max(max_length // 2, _LEAST_ROOM)
    if memory is not None:
        extra = max(0, min(extra, (memory - folder.kv_bytes(max_length)) // 2 // folder.kv_bytes(1)))
    return max(max_length, folder.stop_at_switch(length, min(max_length + extra, folder.context_length)))


def _after_images(ids: npt.NDArray[np.int32]) -> int:
    """Where the text behind the last image begins; 0 without images."""
    slots = np.flatnonzero(ids < 0)
    return int(slots[-1]) + 1 if len(slots) else 0
