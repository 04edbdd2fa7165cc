"""The values that travel through a request: what is asked, what comes back, what it cost.

Everything here is a frozen, slotted dataclass, checked on construction; numbers that can be derived are properties.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .answer_format import AnswerFormat
from .errors import OptionError
from .images.background import DEFAULT_BACKGROUND, parse_background
from .images.cropped import NumCrops, read_crops

if TYPE_CHECKING:
    from .images.load import ImageSource

FinishReason = Literal["stop", "length", "cancelled"]
MAX_LOGPROBS = 20
"""The most likely tokens that are listed in place of a generated one."""

MAX_BATCH_SIZE = 32
"""The most answers at a time: genai takes no larger batch."""


def _normalise(
    values: object, name: str, convert: Callable[[Any], Any], good: Callable[[Any], bool], allowed: str
) -> None:
    """Replace an option by its value as an int, a float or a tuple; refuse what has none or is out of range."""
    given = getattr(values, name)
    try:
        value = convert(given)
        if good(value):
            object.__setattr__(values, name, value)
            return
    except (TypeError, ValueError, OverflowError):
        pass
    raise OptionError(f"{name} is {given!r}; allowed: {allowed}")


def _real(given: Any) -> float:
    """Like float(), but rejects strings."""
    if isinstance(given, (str, bytes, bytearray)):
        raise TypeError
    return float(given)


def _strings(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError
    return tuple(given)


def _refuse_single_image(images: object) -> None:
    """Refuse one image in place of a list: its characters, bytes or rows would be taken for images."""
    one = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    if one or hasattr(images, "__array_interface__") or hasattr(images, "read"):
        raise OptionError(f"images is one {type(images).__name__}; allowed: a list of images, even for one: [image]")


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
        _normalise(self, "temperature", _real, lambda t: 0.0 <= t <= 100.0, "0 (greedy) to 100")
        _normalise(self, "top_k", operator.index, lambda k: k >= 0, "0 (no limit) or a positive integer")
        _normalise(self, "top_p", _real, lambda p: 0.0 < p <= 1.0, "above 0, up to 1")
        _normalise(self, "repetition_penalty", _real, lambda r: 0.0 < r <= 100.0, "above 0, up to 100")
        if self.seed is not None:
            _normalise(self, "seed", operator.index, lambda s: 0 <= s < 2**31, "0 to 2147483647")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A question that was asked earlier, the images that came with it, and the answer that was given."""

    prompt: str
    images: Sequence[ImageSource]
    answer: str

    def __post_init__(self) -> None:
        for name in ("prompt", "answer"):
            if not isinstance(getattr(self, name), str):
                raise OptionError(f"{name} of an earlier turn is {getattr(self, name)!r}; allowed: a string")
        _refuse_single_image(self.images)
        _normalise(self, "images", tuple, lambda _: True, "a list of images")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One question about any number of images.

    `num_crops` None takes the model folder's default, "auto" what each image needs. `stop` strings end the answer and
    are not part of it.
    `system` holds instructions, which stand in front of the turn. `background` is the colour behind transparent pixels,
    or "drop", which shows what transparency hides. `answer_format` keeps the answer to a JSON schema, a regular
    expression or choices (answer_format.py); the model does not see it, so the prompt must say what is wanted.
    `earlier` holds the turns before this one. `logprobs` asks for the log probability of each token, and of so many
    likely tokens in its place (0 to 20).
    """

    prompt: str
    images: Sequence[ImageSource] = ()
    max_new_tokens: int = 512
    num_crops: NumCrops | None = None
    stop: Sequence[str] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    answer_format: AnswerFormat | None = None
    background: str = DEFAULT_BACKGROUND
    system: str = ""
    earlier: Sequence[PastTurn] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise OptionError(f"prompt is {self.prompt!r}; allowed: a string")
        if not isinstance(self.system, str):
            raise OptionError(f"system is {self.system!r}; allowed: a string")
        _refuse_single_image(self.images)
        _normalise(self, "images", tuple, lambda _: True, "a list of images")
        _normalise(self, "max_new_tokens", operator.index, lambda n: 1 <= n < 2**31, "1 to 2147483647")
        if self.num_crops is not None:
            object.__setattr__(self, "num_crops", read_crops(self.num_crops))
        if self.background != DEFAULT_BACKGROUND:
            parse_background(self.background)
        strings = "a list of non-empty strings"
        _normalise(self, "stop", _strings, lambda stop: all(isinstance(s, str) and s for s in stop), strings)
        turns = "a list of PastTurn"
        _normalise(self, "earlier", tuple, lambda earlier: all(isinstance(turn, PastTurn) for turn in earlier), turns)
        if self.logprobs is not None:
            most = f"0 to {MAX_LOGPROBS}"
            _normalise(self, "logprobs", operator.index, lambda n: 0 <= n <= MAX_LOGPROBS, most)
        if not isinstance(self.answer_format, AnswerFormat | None):
            raise OptionError(f"answer_format is {self.answer_format!r}; allowed: JsonSchema, Regex, Choices or None")
        if self.answer_format is not None and self.stop:
            raise OptionError("stop strings would cut an answer short of its answer_format; give one or the other")


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token: its id and the text it completed, "" inside a character or a stop string.

    With `logprobs`: `logprob`, the natural logarithm of the probability that the model gave it, before penalty,
    format and temperature; and `likely`, (id, logprob) of the most likely ones, the first the likeliest.
    """

    id: int
    text: str
    logprob: float | None = None
    likely: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost in tokens. `prompt_tokens` includes `image_tokens`, and `cached_tokens`, which were read for
    an earlier answer; usages that differ in those alone are equal.
    """

    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    cached_tokens: int = field(default=0, compare=False)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each stage took, in seconds. The time a reader of the stream takes is not counted.

    `image_decode_s`: files to RGB images. `preprocess_s`: HD transform and tokenisation. `prefill_s`: vision
    and prompt, up to the first token. `decode_s`: every later token, `decode_tokens` of them.
    """

    image_decode_s: float
    preprocess_s: float
    prefill_s: float
    decode_s: float
    decode_tokens: int

    @property
    def ttft_s(self) -> float:
        """Time to first token: from the call to the first token, images included."""
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
    """A finished answer; `str` gives its text. White space around the text is dropped, unless it has a format.

    `finish_reason`: "stop" (the model ended its turn, or a stop string came), "length" (`max_new_tokens` was
    reached) or "cancelled". `token_ids` are the generated ids, the end-of-turn id excluded. `notes`: what a person
    should know of the images that were read for it, such as "scan.tif: page 1 of 3 is read, and no other".
    """

    text: str
    token_ids: tuple[int, ...] = field(repr=False)
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a conversation and its answer. `request.images` are the images that came with it."""

    request: GenerationRequest
    result: GenerationResult
