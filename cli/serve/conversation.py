"""Messages of any API as one request: instructions, earlier turns, the last question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from phi3v import Choices, GenerationRequest, JsonSchema, PastTurn, Regex, SamplingParams
from phi3v.errors import OptionError

from .errors import ApiError
from .images import Image

MAX_MESSAGES = 1000
"""The most messages of one request; a longer conversation does not fit any context."""

AnyFormat = JsonSchema | Regex | Choices


@dataclass(frozen=True, slots=True)
class Said:
    """One message: its text, and its images in order."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: Sequence[Image] = ()


@dataclass(slots=True)
class _Turn:
    prompt: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Options:
    """How an answer is generated, as `phi3v.GenerationOptions`; None is the default."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    answer_format: AnyFormat | None = None


def make_request(messages: Sequence[Said], options: Options, where: str = "messages") -> GenerationRequest:
    """The request for an answer to the last message.

    Messages of one side behind each other count as one. Instructions come first, and stand in front of the first turn.
    Images stand in front of their message's text, as on the command line. Raises ApiError and OptionError.
    """
    if len(messages) > MAX_MESSAGES:
        raise ApiError(400, f"{where} has {len(messages)} entries; allowed: {MAX_MESSAGES}", param=where)
    system, turns = [message.text for message in messages if message.role == "system"], list[_Turn]()
    for number, message in enumerate(messages):
        if message.role == "system":
            if turns:
                raise ApiError(
                    400, f"{where}.{number} has instructions in the middle; put them first", param=f"{where}.{number}"
                )
        elif message.role == "assistant":
            if not turns:
                raise ApiError(400, f"{where}.{number} is an answer to nothing", param=f"{where}.{number}")
            turns[-1].answer.append(message.text)
        else:
            if not turns or turns[-1].answer:
                turns.append(_Turn())
            turns[-1].prompt.append(message.text)
            turns[-1].images += message.images
    if not turns or turns[-1].answer:
        raise ApiError(400, f"{where} must end with a message of the user", param=where)
    *earlier, last = turns
    past = [PastTurn("\n".join(turn.prompt), turn.images, "\n".join(turn.answer)) for turn in earlier]
    return GenerationRequest(
        "\n".join(last.prompt), last.images, system="\n\n".join(system), earlier=past, **_given(options)
    )


def _given(options: Options) -> dict[str, Any]:
    sampling = {
        name: value
        for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
        if (value := getattr(options, name)) is not None
    }
    found: dict[str, Any] = {"sampling": SamplingParams(**sampling), "stop": options.stop}
    for name in ("max_new_tokens", "logprobs", "answer_format"):
        if (value := getattr(options, name)) is not None:
            found[name] = value
    return found


def json_format(schema: Any = None) -> JsonSchema:
    """The format of a JSON schema, or of any JSON object. Raises OptionError."""
    if schema is None:
        return JsonSchema({"type": "object"})
    if not isinstance(schema, dict):
        raise OptionError(f"answer_format is a {type(schema).__name__}; allowed: a JSON schema, which is an object")
    return JsonSchema(schema)
