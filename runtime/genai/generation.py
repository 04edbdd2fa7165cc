"""One answer's steps on a genai generator, wherever the generator comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backend import ModelInputs
from ..errors import InferenceError
from ..sampling import TokenChooser
from .model import GenaiModel, force_tokens, mapped_errors

OpenGenerator = Callable[[ModelInputs, int], Any]
"""Returns a greedy generator that has read some inputs and has room for that many tokens."""


class GenaiGeneration:
    """One sequence. When it crosses the LongRoPE switch it reads the whole sequence again, as the reference does.

    `open_generator` makes the generators; by default the model does. `keep` gets the generator back when the generation
    ends, or None if something went wrong with it. `generated` tokens were generated earlier and count towards
    `max_new_tokens`.
    """

    def __init__(
        self,
        model: GenaiModel,
        inputs: ModelInputs,
        chooser: TokenChooser,
        max_new_tokens: int,
        open_generator: OpenGenerator | None = None,
        keep: Callable[[Any], None] | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        self._open: OpenGenerator | None = open_generator or model.new_generator
        self._keep = keep
        self._model = model
        self._inputs = inputs
        self._chooser = chooser
        self._generated = list(generated)
        self._max_length = len(inputs.input_ids) + max_new_tokens
        self._limit = 0
        """Tokens at which the running generator has done its part; 0 before there is one."""
        self._room = 0
        """Tokens that its KV buffer holds: all of them, or one less."""
        self._generator: Any = None

    def step(self) -> int:
        """Next token id; the first call runs vision and prefill, and so does the one that crosses the switch."""
        if self._open is None:
            raise InferenceError("this generation is closed; start a new one")
        self._model.check_process()
        try:
            return self._next(self._open)
        except BaseException:
            self._generator = None  # its KV cache may hold anything now
            raise

    def close(self) -> None:
        """Free the KV cache, or leave it to the next generation."""
        if self._open is None:
            return
        generator, self._generator, self._open = self._generator, None, None
        if self._keep is not None:
            self._keep(generator)

    def _next(self, open_generator: OpenGenerator) -> int:
        length = len(self._inputs.input_ids) + len(self._generated)
        if length >= self._limit:
            self._generator = None  # free the old KV buffer before the new one is allocated
            self._limit = self._model.folder.stop_at_switch(length, self._max_length)
            self._room = self._model.buffer_tokens(length, self._limit)
            self._generator = open_generator(self._inputs_so_far(), self._room)
        with mapped_errors("generation"):
            token = self._generate() if length < self._room else self._choose(self._generator.get_logits())
        self._generated.append(token)
        return token

    def _generate(self) -> int:
        if not self._chooser.is_argmax:
            logits = self._generator.get_logits()
            force_tokens(self._generator, logits, {0: self._choose(logits)})
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])

    def _choose(self, logits: npt.NDArray[np.floating]) -> int:
        return self._chooser.choose(logits[0, -1])

    def _inputs_so_far(self) -> ModelInputs:
        ids = np.concatenate([self._inputs.input_ids, np.asarray(self._generated, dtype=np.int32)])
        return replace(self._inputs, input_ids=ids)
