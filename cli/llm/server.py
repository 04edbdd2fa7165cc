"""Asks a running `phi3v serve` for an answer, as any client of OpenAI's API does."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from phi3v.errors import InferenceError
from phi3v.images.source import read_source

if TYPE_CHECKING:
    from phi3v import GenerationRequest, GenerationResult

_CONNECT_S = 5.0


class ServerLostError(Exception):
    """The server could not be reached, and nothing was said yet."""


def ask_server(url: str, model: str, request: GenerationRequest) -> Generator[str, None, GenerationResult]:
    """Yield the text of an answer as it comes, and return the result.

    Raises ServerLostError before the first text, InferenceError for what the server says, and ImageError.
    """
    import openai

    client = openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=os.environ.get("PHI3V_API_KEY") or "none",
        max_retries=0,
        timeout=openai.Timeout(None, connect=_CONNECT_S),
    )
    text, last, reason = "", None, "stop"
    try:
        with client.chat.completions.create(**_body(model, request)) as chunks:
            for chunk in chunks:
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        text += choice.delta.content
                        yield choice.delta.content
                last = chunk if chunk.usage is not None else last
    except openai.APIConnectionError as exc:
        if text:
            raise InferenceError(f"the server at {url} was lost in the middle of the answer; ask again") from exc
        raise ServerLostError(str(exc)) from exc
    except openai.APIError as exc:
        raise InferenceError(_describe(url, exc)) from exc
    if last is None:
        raise InferenceError(f"the server at {url} ended the answer before it was complete; ask again")
    return _result(text, reason, last.usage, last.model_extra["timings"])


def _describe(url: str, error: Any) -> str:
    said = error.body.get("message", error.message) if isinstance(error.body, dict) else error.message
    hint = "; set PHI3V_API_KEY to the key it was started with" if getattr(error, "status_code", None) == 401 else ""
    return f"the server at {url} says: {said}{hint}"


def _body(model: str, request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    messages: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
    for turn in request.earlier:
        messages.append(_question(turn.prompt, turn.images, request.num_crops))
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append(_question(request.prompt, request.images, request.num_crops))
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty},
    }
    if request.answer_format is not None:
        schema = json.loads(request.answer_format.schema)  # type: ignore[union-attr]
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {name: value for name, value in body.items() if value is not None}


def _question(text: str, images: Sequence[Any], num_crops: int | str | None) -> dict[str, Any]:
    crops = {} if num_crops is None else {"num_crops": num_crops}
    parts: list[dict[str, Any]] = []
    for image in images:
        url = f"data:;base64,{base64.b64encode(read_source(image)[0]).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url} | crops})
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def _result(text: str, reason: str, usage: Any, timings: dict[str, float]) -> GenerationResult:
    from phi3v import GenerationResult, Timings, Usage

    details = usage.prompt_tokens_details
    times = Timings(
        timings["image_decode_s"],
        timings["preprocess_s"],
        timings["prefill_s"],
        timings["decode_s"],
        max(0, usage.completion_tokens - 1),
    )
    used = Usage(usage.prompt_tokens, details.image_tokens, usage.completion_tokens, details.cached_tokens)
    return GenerationResult(text, (), "length" if reason == "length" else "stop", used, times)
