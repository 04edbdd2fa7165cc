"""How a token is chosen from its logits: one rule for every backend, for rows of a batch and turns of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .types import SamplingParams

Logits = npt.NDArray[np.floating]
_GREEDY = SamplingParams()


class TokenConstraint(Protocol):
    """Which tokens an answer may have next; one object per answer."""

    def allowed(self) -> npt.NDArray[np.bool_]:
        """bool [vocab]: the ids that may come next."""
        ...

    def accept(self, token_id: int) -> None:
        """Advance by the token that was chosen."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing but its end may follow."""
        ...


class TokenChooser:
    """Chooses the tokens of one answer, one after the other.

    In this order, as Hugging Face does: the repetition penalty over the prompt's text and the answer so far, the
    constraint, then the likeliest token, or a draw with temperature, top_k and top_p. Draws depend on the seed and on
    nothing else, so the same request draws the same in a batch, in a session and alone.
    """

    def __init__(
        self,
        sampling: SamplingParams = _GREEDY,
        prompt_ids: npt.NDArray[np.int32] | Sequence[int] = (),
        constraint: TokenConstraint | None = None,
        logprobs: int | None = None,
    ) -> None:
        self._sampling = sampling
        self._logprobs = logprobs
        self.logprob: float | None = None
        """Of the token that was chosen last, if `logprobs` are wanted."""
        self.likely: tuple[tuple[int, float], ...] = ()
        """So many of the likeliest tokens in its place, and the logarithms of their probabilities."""
        self._constraint = constraint
        self._rng = np.random.default_rng(sampling.seed)
        ids = np.asarray(prompt_ids, dtype=np.int64)
        self._seen = np.unique(ids[ids >= 0])  # image slots are negative, and are not words

    @property
    def is_argmax(self) -> bool:
        """True if this is plain argmax, so the engine may pick the token itself."""
        return (
            self._sampling.greedy
            and self._sampling.repetition_penalty == 1.0
            and self._constraint is None
            and self._logprobs is None
        )

    @property
    def finished(self) -> bool:
        """Whether a constraint says that the answer is complete: it ends here, as if the model had ended its turn."""
        return self._constraint is not None and self._constraint.finished

    def choose(self, logits: Logits) -> int:
        """The next token's id, given its logits [vocab]."""
        scores = logits.astype(np.float64)
        raw = None if self._logprobs is None else scores - scores.max()
        if self._sampling.repetition_penalty != 1.0:
            seen = scores[self._seen]
            penalty = self._sampling.repetition_penalty
            scores[self._seen] = np.where(seen > 0, seen / penalty, seen * penalty)
        if self._constraint is not None:
            scores[~self._constraint.allowed()] = -np.inf
        token = int(scores.argmax()) if self._sampling.greedy else self._draw(scores)
        if raw is not None:
            self._note_probabilities(raw, token)
        self._seen = np.union1d(self._seen, [token])
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def _note_probabilities(self, scores: npt.NDArray[np.float64], token: int) -> None:
        logs = scores - np.log(np.exp(scores).sum())
        self.logprob = float(logs[token])
        order = np.argsort(-logs, kind="stable")[: self._logprobs]
        self.likely = tuple((int(one), float(logs[one])) for one in order)

    def _draw(self, scores: npt.NDArray[np.float64]) -> int:
        order = np.argsort(-scores, kind="stable")
        if self._sampling.top_k:
            order = order[: self._sampling.top_k]
        ranked = (scores[order] - scores[order[0]]) / self._sampling.temperature
        cumulative = np.cumsum(np.exp(ranked))
        cumulative /= cumulative[-1]
        # The nucleus is the fewest of the likeliest tokens that hold top_p; the likeliest always belongs to it.
        nucleus = int(np.searchsorted(cumulative, self._sampling.top_p)) + 1
        cumulative = cumulative[:nucleus]
        return int(order[np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right")])
