"""OpenAI's chat completions on the wire. Source of the fields: OpenAI's API reference, openai-python 3.57."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .wire import Crops, Neutral, Schema, Sent, Strict


class ImageUrl(Strict):
    """An image. `num_crops` is an extension: 1 to 16, or "auto"."""

    url: str
    detail: Literal["low", "auto", "high", "original"] | None = None
    num_crops: Crops | None = None


class ImagePart(Strict):
    """An image among the parts of a message; some clients send a bare string."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class TextPart(Strict):
    """A text among the parts of a message."""

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """What a model said in place of an answer."""

    type: Literal["refusal"]
    refusal: str


class SystemMessage(Strict):
    """Instructions. `name` has no effect."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(Strict):
    """A question, with images. `name` has no effect."""

    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = None


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]] | None = None
    name: str | None = None
    refusal: str | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class JsonSchemaFormat(Strict):
    """A schema that the answer has. `strict` has no effect: it always has it."""

    name: str
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """A JSON schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaFormat


class StreamOptions(Strict):
    """`include_usage`: a last chunk with the tokens that were used. `include_obfuscation` has no effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Strict):
    """A chat completion.

    `top_k` and `repetition_penalty` are extensions. Without `temperature` the answer is greedy, as on the command line.
    """

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Without effect on the answer.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    # Only at the value that changes nothing.
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None


class TopLogprob(Sent):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token that came."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Sent):
    """The tokens of an answer."""

    content: list[TokenLogprob] | None
    refusal: None = None


class AnswerMessage(Sent):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(Sent):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class PromptDetails(Sent):
    """`cached_tokens` were not read again; `image_tokens` is an extension."""

    cached_tokens: int
    image_tokens: int


class UsageSent(Sent):
    """The tokens of all answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TimingsSent(Sent):
    """How long the answer took, in seconds; the first one's of several. An extension, as of llama.cpp's server."""

    image_decode_s: float
    preprocess_s: float
    prefill_s: float
    ttft_s: float
    decode_s: float
    tpot_s: float
    tokens_per_s: float
    total_s: float


class ChatCompletion(Sent):
    """All answers."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageSent
    timings: TimingsSent
    system_fingerprint: None = None


class Delta(Sent):
    """What an answer grows by."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Sent):
    """One of the answers, growing."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(Sent):
    """A piece of the answers."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageSent | None = None
    timings: TimingsSent | None = None
