"""One answer in the making: token ids in, text out, until an end token, a stop string or the length ends it.

Knows nothing of where the ids come from: a stream, a row of a batch.
"""

from __future__ import annotations

from .answer_format import truncated
from .backend import Backend
from .prepare import PreparedRequest
from .sampling import TokenChooser
from .stop_strings import StopStrings
from .structured.constraint import constraint_for
from .types import FinishReason, GenerationResult, Timings, Token, Usage


class Answer:
    """The tokens of one answer so far, their text, and the model's time they took."""

    def __init__(self, backend: Backend, prepared: PreparedRequest) -> None:
        request, answer_format = prepared.request, prepared.request.answer_format
        constraint = constraint_for(backend.tokenizer, backend.model, answer_format) if answer_format else None
        self.chooser = TokenChooser(request.sampling, prepared.inputs.input_ids, constraint)
        """What chooses the tokens that are pushed."""
        self._must_complete = constraint is not None
        self._prepared = prepared
        self._eos = backend.model.eos_token_ids
        self._decoder = backend.text_stream()
        self._stop = StopStrings(prepared.request.stop)
        self._ids: list[int] = []
        self._pieces: list[str] = []
        self._prefill_s = self._decode_s = 0.0
        self._steps = 0
        self.finish_reason: FinishReason | None = None
        """None while tokens are still to come."""

    def push(self, token_id: int, seconds: float) -> Token:
        """Take the next token, and the seconds the model needed for it; sets `finish_reason` with the last one.

        Raises TruncatedAnswerError with the last one of an answer in a format that the length cuts off.
        """
        self._add_step(seconds)
        if token_id in self._eos:
            return self._last(token_id, "stop")
        self._ids.append(token_id)
        text = self._stop.push(self._decoder.push(token_id))
        if self._stop.hit or self.chooser.finished:
            return self._last(token_id, "stop", text)
        if len(self._ids) == self._prepared.request.max_new_tokens:
            last = self._last(token_id, "length", text)
            if self._must_complete:
                raise truncated("".join(self._pieces), len(self._ids))
            return last
        self._pieces.append(text)
        return Token(token_id, text)

    def cancel(self) -> None:
        """End an unfinished answer here; the text so far is kept."""
        if self.finish_reason is None:
            self._pieces.append(self._held_back())
            self.finish_reason = "cancelled"

    def result(self) -> GenerationResult:
        """The finished answer."""
        assert self.finish_reason is not None
        prepared, inputs = self._prepared, self._prepared.inputs
        usage = Usage(len(inputs.input_ids), sum(inputs.image_tokens), len(self._ids))
        later = max(0, self._steps - 1)
        timings = Timings(prepared.image_decode_s, prepared.preprocess_s, self._prefill_s, self._decode_s, later)
        return GenerationResult("".join(self._pieces), tuple(self._ids), self.finish_reason, usage, timings)

    def _add_step(self, seconds: float) -> None:
        if self._steps == 0:
            self._prefill_s = seconds
        else:
            self._decode_s += seconds
        self._steps += 1

    def _last(self, token_id: int, reason: FinishReason, text: str = "") -> Token:
        text += self._held_back()
        self._pieces.append(text)
        self.finish_reason = reason
        return Token(token_id, text)

    def _held_back(self) -> str:
        """Text that waited for the rest of a character or of a stop string, and is the answer's if none came."""
        if self._stop.hit:
            return ""
        return self._stop.push(self._decoder.flush()) + self._stop.flush()
