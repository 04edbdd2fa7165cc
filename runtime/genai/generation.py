"""One answer's steps on a genai generator, wherever the generator comes from. Does not import genai itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import ModelInputs
from ..errors import InferenceError
from ..sampling import TokenChooser
from .model import mapped_errors


class GenaiGeneration:
    """One sequence. Crossing the LongRoPE switch it starts over with the whole sequence, as the reference does.

    `open_generator` gives a greedy generator that has read some inputs and has room for so many tokens; `keep` gets it
    back when the generation ends, or None when something went wrong with it. `generated` tokens are there already, and
    count among the `max_new_tokens`.
    """

    def __init__(
        self,
        open_generator: Callable[[ModelInputs, int], Any],
        switch: int | None,
        inputs: ModelInputs,
        chooser: TokenChooser,
        max_new_tokens: int,
        keep: Callable[[Any], None] | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        self._open: Callable[[ModelInputs, int], Any] | None = open_generator
        self._keep = keep
        self._switch = switch
        self._inputs = inputs
        self._chooser = chooser
        self._generated = list(generated)
        self._max_length = len(inputs.input_ids) + max_new_tokens
        self._limit = 0
        """Tokens the running generator may hold; 0 before there is one."""
        self._generator: Any = None

    def step(self) -> int:
        """Next token id; the first call runs vision and prefill, and so does the one that crosses the switch."""
        if self._open is None:
            raise InferenceError("this generation is closed; start a new one")
        try:
            return self._next(self._open)
        except BaseException:
            self._generator = None  # nobody knows what its KV cache holds now
            raise

    def close(self) -> None:
        """Free the KV cache, or leave it to the next generation."""
        if self._open is None:
            return
        generator, self._generator, self._open = self._generator, None, None
        if self._keep is not None:
            self._keep(generator)

    def _next(self, open_generator: Callable[[ModelInputs, int], Any]) -> int:
        length = len(self._inputs.input_ids) + len(self._generated)
        if length >= self._limit:
            self._generator = None  # free the old KV buffer before the new one is allocated
            self._limit = self._room(length)
            self._generator = open_generator(self._inputs_so_far(), self._limit)
        with mapped_errors("generation"):
            if not self._chooser.plain:
                self._choose()
            self._generator.generate_next_token()
            token = int(self._generator.get_next_tokens()[0])
        self._generated.append(token)
        return token

    def _room(self, length: int) -> int:
        """Tokens to make room for: no more than up to the switch while the sequence is below it."""
        switch = self._switch
        return min(self._max_length, switch + 1) if switch and length <= switch else self._max_length

    def _inputs_so_far(self) -> ModelInputs:
        ids = np.concatenate([self._inputs.input_ids, np.asarray(self._generated, dtype=np.int32)])
        return ModelInputs(ids, self._inputs.pixel_values, self._inputs.image_sizes, self._inputs.image_tokens)

    def _choose(self) -> None:
        """Leave genai one token to take. Its own sampler and penalty are not used: top_p without top_k draws tokens
        from outside the nucleus, and the penalty indexes logits with the negative picture slots.
        """
        logits = self._generator.get_logits()
        token = self._chooser.choose(logits[0, -1])
        logits.fill(-np.inf)
        logits[0, -1, token] = 0.0
        self._generator.set_logits(logits)
