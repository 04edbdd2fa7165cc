"""Ollama's API on the wire. Source of the fields: Ollama's docs/api.md, ollama-python 0.6."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .wire import Schema, Strict


class OllamaOptions(Strict):
    """How an answer is generated. The fields after `repeat_penalty` have no effect here."""

    num_predict: Annotated[int, Field(ge=-2)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    num_thread: int | None = None
    num_keep: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    min_p: Literal[0] | None = None
    typical_p: Literal[1] | None = None
    mirostat: Literal[0] | None = None


class OllamaMessage(Strict):
    """A message; `images` are base64."""

    role: Literal["system", "user", "assistant"]
    content: str = ""
    images: list[str] | None = None
    thinking: str | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_name: None = None


class _Common(Strict):
    model: str
    stream: bool | None = None
    format: Literal["", "json"] | Schema | None = None
    options: OllamaOptions | None = None
    keep_alive: str | float | None = None
    think: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None


class OllamaChat(_Common):
    """A conversation. Without messages, the model is loaded or, with `keep_alive` 0, unloaded."""

    messages: Annotated[list[OllamaMessage], Field(default_factory=list)]
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


class OllamaGenerate(_Common):
    """A prompt. Without one, the model is loaded or, with `keep_alive` 0, unloaded."""

    prompt: str = ""
    images: list[str] | None = None
    system: str | None = None
    raw: Literal[False] | None = None
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None
    width: None = None
    height: None = None
    steps: None = None


class OllamaShow(Strict):
    """Which model to describe; older clients say `name`."""

    model: str = ""
    name: str = ""
    verbose: bool | None = None
    system: Literal[""] | None = None
    template: Literal[""] | None = None
    options: Annotated[dict[str, Any], Field(max_length=0)] | None = None
