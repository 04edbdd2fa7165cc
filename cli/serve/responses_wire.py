"""OpenAI's Responses API on the wire, without what is stored. Source of the fields: openai-python 3.57."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .wire import Crops, Schema, Strict


class InputText(Strict):
    """A text."""

    type: Literal["input_text"]
    text: str


class InputImage(Strict):
    """An image. `num_crops` is an extension: 1 to 16, or "auto"."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["low", "auto", "high", "original"] | None = None
    file_id: None = None
    num_crops: Crops | None = None


class OutputText(Strict):
    """A text of an earlier answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Part = Annotated[InputText | InputImage | OutputText, Field(discriminator="type")]


class InputMessage(Strict):
    """A message. `id`, `status` and `phase` have no effect."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """A JSON schema, which the answer always has."""

    type: Literal["json_schema"]
    name: str
    schema_: Annotated[Schema, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextSettings(Strict):
    """The format of the answer."""

    format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class StreamOptions(Strict):
    """Without effect."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Strict):
    """A response. `top_k` and `repetition_penalty` are extensions."""

    model: str
    input: str | Annotated[list[InputMessage], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    text: TextSettings | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Without effect on the answer: nothing is stored.
    store: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    # Only at the value that changes nothing.
    background: Literal[False] | None = None
    conversation: None = None
    include: Annotated[list[str], Field(max_length=0)] | None = None
    previous_response_id: None = None
    prompt: None = None
    reasoning: None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    top_logprobs: Literal[0] | None = None
    truncation: Literal["disabled"] | None = None
