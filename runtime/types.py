"""The values that travel through a request: what is asked, what comes back, what it cost.

Everything here is a frozen, slotted dataclass, checked on construction; numbers that can be derived are properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .errors import OptionError

if TYPE_CHECKING:
    from .images import ImageSource

FinishReason = Literal["stop", "length", "cancelled"]

MAX_CROPS = 16
"""The most sub-crops the reference processor is ever run with."""


def _require(ok: bool, name: str, given: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {given!r}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. The default is greedy.

    `temperature` 0 is greedy and ignores `top_k`, `top_p` and `seed`. `top_k` 0 means no limit.
    `repetition_penalty` 1 changes nothing. `seed` None draws a fresh one.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(0.0 <= self.temperature <= 100.0, "temperature", self.temperature, "0 (greedy) to 100")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (no limit) or a positive integer")
        _require(0.0 < self.top_p <= 1.0, "top_p", self.top_p, "above 0, up to 1")
        _require(
            0.0 < self.repetition_penalty <= 100.0,
            "repetition_penalty",
            self.repetition_penalty,
            "above 0, up to 100",
        )
        _require(self.seed is None or 0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One question about any number of pictures.

    `num_crops` None takes the model folder's default. `stop` strings end the answer and are not part of it.
    """

    prompt: str
    images: Sequence[ImageSource] = ()
    max_new_tokens: int = 512
    num_crops: int | None = None
    stop: Sequence[str] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def __post_init__(self) -> None:
        _require(isinstance(self.prompt, str), "prompt", self.prompt, "a string")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(
            self.num_crops is None or 1 <= self.num_crops <= MAX_CROPS,
            "num_crops",
            self.num_crops,
            f"1 to {MAX_CROPS}",
        )
        _require(not isinstance(self.stop, str), "stop", self.stop, "a list of strings")
        _require(all(isinstance(s, str) and s for s in self.stop), "stop", self.stop, "non-empty strings")


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token: its id and the text it completed, "" inside a character or a stop string."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost in tokens. `prompt_tokens` includes `image_tokens`."""

    prompt_tokens: int
    image_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each stage took, in seconds. The time a reader of the stream takes is not counted.

    `image_decode_s`: files to RGB pictures. `preprocess_s`: HD transform and tokenisation. `prefill_s`: vision
    and prompt, up to the first token. `decode_s`: every later token, `decode_tokens` of them.
    """

    image_decode_s: float
    preprocess_s: float
    prefill_s: float
    decode_s: float
    decode_tokens: int

    @property
    def ttft_s(self) -> float:
        """Time to first token: from the call to the first token, pictures included."""
        return self.image_decode_s + self.preprocess_s + self.prefill_s

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; 0 when there was only one."""
        return self.decode_s / self.decode_tokens if self.decode_tokens else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Decode rate; 0 when there was only one token."""
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0

    @property
    def total_s(self) -> float:
        """The whole request."""
        return self.ttft_s + self.decode_s


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished answer.

    `finish_reason`: "stop" (the model ended its turn, or a stop string came), "length" (`max_new_tokens` was
    reached) or "cancelled". `token_ids` are the generated ids, the end-of-turn id excluded.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
