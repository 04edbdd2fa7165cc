"""The options of one answer, declared once for `generate`, `stream`, sessions, `extract` and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from .types import GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from .answer_format import AnswerFormat
    from .images.cropped import NumCrops
    from .images.load import ImageSource

_SAMPLING = frozenset(field.name for field in fields(SamplingParams))


class _Options(TypedDict, total=False):
    """What every kind of answer takes."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None


class ExtractOptions(_Options, total=False):
    """What `Engine.extract` takes: its format is its first argument, and stop strings would cut it short."""

    num_crops: NumCrops | None
    background: str
    system: str


class SessionOptions(_Options, total=False):
    """What a question in a session takes: its images were cut into crops when the session was opened."""

    stop: Sequence[str]
    answer_format: AnswerFormat | None
    logprobs: int | None


class GenerationOptions(ExtractOptions, SessionOptions, total=False):
    """How one answer is generated. Every option may be left out; `GenerationRequest` and `SamplingParams` hold the
    defaults and the allowed ranges.

    `max_new_tokens`: longest answer, in tokens (512). `num_crops`: 1 to 16, the most 336-pixel crops an image is cut
    into (more detail, more tokens); "auto", the fewest that keep each image's own resolution; None, the model folder's
    default. `background`: the colour behind transparent pixels ("white"), or "drop". `system`: instructions in front of
    the conversation. `stop`: strings that end the answer and are not part of it. `temperature` 0 is greedy, and then
    `top_k` (0: no limit), `top_p` and `seed` (None: a fresh one) have no effect. `repetition_penalty` above 1 repeats
    less. `answer_format`: a JsonSchema, Regex or Choices that the answer must match. `logprobs`: how many likely tokens
    to list beside each token that a stream yields, 0 to 20; None, no probabilities at all.
    """


def make_request(
    prompt: str, images: Sequence[ImageSource] = (), **options: Unpack[GenerationOptions]
) -> GenerationRequest:
    """The request for one answer.

    Raises OptionError for a value that is not allowed, and TypeError for an option that does not exist.
    """
    given: dict[str, Any] = {**options}
    if unknown := sorted(given.keys() - GenerationOptions.__annotations__.keys()):
        raise TypeError(f"{unknown[0]!r} is not an option; allowed: {', '.join(GenerationOptions.__annotations__)}")
    sampling = SamplingParams(**{name: given.pop(name) for name in _SAMPLING & given.keys()})
    return GenerationRequest(prompt, images, sampling=sampling, **given)
