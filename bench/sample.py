"""One answer as a subject measured it, and the two checks that every subject's answer goes through."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from ..errors import InferenceError
from .cases import Case


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One answer: the seconds of each stage, the token counts, and a digest of the token ids.

    `image_decode_s` is None for a backend that decodes the image while it preprocesses, `preprocess_s` for one that
    preprocesses inside its vision graph: `prefill_s` then includes both. `ttft_s` runs from the call to the first
    token, `decode_s` over the `decode_tokens` after it, detokenisation included. `first_token_at` is time.monotonic().
    """

    image_decode_s: float | None
    preprocess_s: float | None
    prefill_s: float
    ttft_s: float
    decode_s: float
    decode_tokens: int
    total_s: float
    prompt_tokens: int
    image_tokens: int
    first_token_at: float
    tokens_digest: str


def count_decode_tokens(ids: Sequence[int], case: Case) -> int:
    """Count the tokens after the first. Raises InferenceError unless there are as many as the case asks for."""
    if len(ids) != case.new_tokens:
        raise InferenceError(f"case {case} gave {len(ids)} tokens; the record would compare unequal work")
    return len(ids) - 1


def hash_tokens(ids: Sequence[int]) -> str:
    """Hash token ids to sixteen hexadecimal digits: equal answers have equal hashes."""
    return hashlib.sha256(repr(list(ids)).encode()).hexdigest()[:16]
