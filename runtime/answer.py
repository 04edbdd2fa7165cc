"""One answer in the making: token ids in, text out, until an end token, a stop string or the length ends it.

Does not know where the ids come from: a stream, or a row of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from .answer_format import truncated
from .backend import Backend
from .prepare import PreparedRequest, start_constraint
from .sampling import TokenChooser
from .types import FinishReason, GenerationResult, Timings, Token, Usage


class Answer:
    """The tokens of one answer so far, their text, and how long the model took for them."""

    def __init__(self, backend: Backend, prepared: PreparedRequest) -> None:
        constraint = start_constraint(backend, prepared.request)
        request = prepared.request
        self.chooser = TokenChooser(request.sampling, prepared.inputs.input_ids, constraint, request.logprobs)
        """Chooses the tokens that are pushed."""
        self._must_complete = constraint is not None
        self._prepared = prepared
        self._eos = backend.model.eos_token_ids
        self._decoder = backend.tokenizer.text_stream()
        self._stop = StopStrings(prepared.request.stop)
        self._ids: list[int] = []
        self._pieces: list[str] = []
        self._space = ""
        self._prefill_s = self._decode_s = 0.0
        self._steps = 0
        self.finish_reason: FinishReason | None = None
        """None while tokens are still to come."""
        self.cached_tokens = 0
        """Tokens of the prompt that were read for an earlier answer."""

    def push(self, token_id: int, seconds: float) -> Token:
        """Take the next token, and the seconds the model needed for it; sets `finish_reason` with the last one.

        Raises TruncatedAnswerError with the last one of an answer in a format that the length cuts off.
        """
        self._add_step(seconds)
        if token_id in self._eos:
            return self._last(token_id, "stop")
        self._ids.append(token_id)
        text = self._trim(self._stop.push(self._decoder.push(token_id)))
        if self._stop.hit or self.chooser.finished:
            return self._last(token_id, "stop", text)
        if len(self._ids) == self._prepared.request.max_new_tokens:
            last = self._last(token_id, "length", text)
            if self._must_complete:
                raise truncated("".join(self._pieces), len(self._ids))
            return last
        self._pieces.append(text)
        return self._token(token_id, text)

    def cancel(self) -> None:
        """End an unfinished answer here; the text so far is kept."""
        if self.finish_reason is None:
            self._pieces.append(self._trim(self._held_back()))
            self.finish_reason = "cancelled"

    def result(self) -> GenerationResult:
        """The finished answer."""
        assert self.finish_reason is not None
        prepared, inputs = self._prepared, self._prepared.inputs
        usage = Usage(len(inputs.input_ids), sum(inputs.image_tokens), len(self._ids), self.cached_tokens)
        later = max(0, self._steps - 1)
        timings = Timings(prepared.image_decode_s, prepared.preprocess_s, self._prefill_s, self._decode_s, later)
        return GenerationResult(
            "".join(self._pieces), tuple(self._ids), self.finish_reason, usage, timings, prepared.notes
        )

    def _add_step(self, seconds: float) -> None:
        if self._steps == 0:
            self._prefill_s = seconds
        else:
            self._decode_s += seconds
        self._steps += 1

    def _last(self, token_id: int, reason: FinishReason, text: str = "") -> Token:
        text += self._trim(self._held_back())
        self._pieces.append(text)
        self.finish_reason = reason
        return self._token(token_id, text)

    def _token(self, token_id: int, text: str) -> Token:
        return Token(token_id, text, self.chooser.logprob, self.chooser.likely)

    def _trim(self, text: str) -> str:
        """Text without white space at either end of the answer: what may be the end waits for more text.

        An answer in a format keeps its own.
        """
        if self._must_complete:
            return text
        text = self._space + text if any(self._pieces) else text.lstrip()
        kept = text.rstrip()
        self._space = text[len(kept) :]
        return kept

    def _held_back(self) -> str:
        """Text held back for the rest of a character or of a stop string; it belongs to the answer if none came."""
        if self._stop.hit:
            return ""
        return self._stop.push(self._decoder.flush()) + self._stop.flush()


class StopStrings:
    """Passes text through up to the first stop string, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False
        """Whether a stop string has come; no text passes after it."""

    def push(self, text: str) -> str:
        """Add text; returns what is certainly in front of any stop string."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            passed, self._held = self._held[: min(found)], ""
            return passed
        keep = max(self._overlap(stop) for stop in self._stops)
        passed = self._held[: len(self._held) - keep]
        self._held = self._held[len(passed) :]
        return passed

    def flush(self) -> str:
        """The text that was held back and turned out not to be a stop string."""
        passed, self._held = self._held, ""
        return passed

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that starts `stop`."""
        most = min(len(stop) - 1, len(self._held))
        return next((n for n in range(most, 0, -1) if self._held.endswith(stop[:n])), 0)
