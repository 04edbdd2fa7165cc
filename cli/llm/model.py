"""A model as `llm` asks it: prompts with attachments, schemas, conversations and options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import llm
from llm.parts import AttachmentPart, TextPart
from pydantic import Field

from phi3v.errors import Phi3VError

if TYPE_CHECKING:
    from phi3v import GenerationRequest, GenerationResult

_TYPES = frozenset(
    f"image/{kind}"
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "x-ms-bmp", "tiff", "avif", "heic", "heif", "x-icon", "mpo")
)


_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")


class Phi3VOptions(llm.Options):
    """As of `phi3v ask`; what is not given is the model's own default."""

    num_crops: int | Literal["auto"] | None = Field(None, description="Most crops of an image: 1 to 16, or auto")
    max_new_tokens: int | None = Field(None, description="Most tokens of an answer; 512 without it")
    temperature: float | None = Field(None, description="0 (greedy, the default) to 100")
    top_p: float | None = Field(None, description="Above 0, up to 1")
    top_k: int | None = Field(None, description="0 (no limit) or more")
    repetition_penalty: float | None = Field(None, description="Above 0, up to 100; 1 changes nothing")
    seed: int | None = Field(None, description="Makes an answer with a temperature repeatable")
    device: str | None = Field(None, description="auto, cpu, cuda, webgpu or openvino")


class Phi3VModel(llm.Model):
    """One model. `name`: as of `phi3v ask --model`; None is what that takes without one."""

    can_stream = True
    supports_schema = True
    attachment_types = _TYPES
    Options = Phi3VOptions  # type: ignore[assignment]

    def __init__(self, model_id: str, name: str | None) -> None:
        self.model_id = model_id
        self.name = name

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the answer's text as it comes."""
        from .answer import answer_tokens

        device = prompt.options.device
        try:
            request = _read_request(prompt)
            result = yield from answer_tokens(self.name, device, request)
        except Phi3VError as exc:
            raise llm.ModelError(str(exc)) from exc
        _note(response, result)


@dataclass(slots=True)
class _Turn:
    """What one side said, and then the other."""

    prompt: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)


def _read_request(prompt: Any) -> GenerationRequest:
    """The request for an answer to a prompt; `prompt.messages` has what was said before, too."""
    from phi3v import GenerationRequest, JsonSchema, PastTurn, SamplingParams

    system, turns = "", [_Turn()]
    for message in prompt.messages:
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
        if message.role == "system":
            system = text
        elif message.role == "assistant":
            turns[-1].answer.append(text)
        else:
            if turns[-1].answer:
                turns.append(_Turn())
            turns[-1].prompt.append(text)
            shown = [part.attachment for part in message.parts if isinstance(part, AttachmentPart) and part.attachment]
            turns[-1].images += [one.path or one.url or one.content for one in shown]  # an error then names the file
    *earlier, last = turns
    given = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
    options: dict[str, Any] = {name: given[name] for name in ("num_crops", "max_new_tokens") if name in given}
    if prompt.schema is not None:
        options["answer_format"] = JsonSchema(prompt.schema)
    return GenerationRequest(
        "\n".join(last.prompt),
        last.images,
        system=system,
        earlier=[PastTurn("\n".join(turn.prompt), turn.images, "\n".join(turn.answer)) for turn in earlier],
        sampling=SamplingParams(**{name: given[name] for name in _SAMPLING if name in given}),
        **options,
    )


def _note(response: Any, result: GenerationResult) -> None:
    usage, timings = result.usage, result.timings
    details = {"image_tokens": usage.image_tokens, "cached_tokens": usage.cached_tokens}
    response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens, details=details)
    response.response_json = {
        "finish_reason": result.finish_reason,
        "notes": list(result.notes),
        "ttft_s": timings.ttft_s,
        "prefill_s": timings.prefill_s,
        "decode_s": timings.decode_s,
    }
