"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from phi3v import GenerationRequest, GenerationResult, Timings, Token, Usage
from phi3v.errors import Phi3VError
from phi3v.tokenizer import Tokenizer

from .answers import Finished, now, open_answers, read_all, read_tokens
from .body import read_body
from .chat_wire import (
    AnswerMessage,
    AssistantMessage,
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    ImagePart,
    PromptDetails,
    SchemaFormat,
    TextFormat,
    TextPart,
    TimingsSent,
    TokenLogprob,
    TopLogprob,
    UsageSent,
)
from .conversation import AnyFormat, Options, Said, json_format, make_request
from .errors import ApiError, as_api_error
from .images import Image, ImageReader
from .service import Answering, Service
from .sse import event, event_stream, unless_gone


async def complete_chat(request: Request) -> Response:
    """Answer a conversation, at once or as a stream."""
    service: Service = request.app.state.service
    body = await read_body(request, ChatRequest, service.settings.body_timeout_s)
    service.check_model(body.model)
    wanted = read_chat(body, request.app.state.images)
    count = body.n or 1
    head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": now(), "model": service.name}
    answers = await unless_gone(request, open_answers(service, wanted, count))
    tokenizer = service.tokenizer
    if body.stream:
        include = body.stream_options is not None and bool(body.stream_options.include_usage)
        chunks = _stream(answers, head, tokenizer, logprobs=bool(body.logprobs), include_usage=include)
        return event_stream(chunks)
    finished = await unless_gone(request, read_all(answers))
    choices = [_choice(number, one, tokenizer, bool(body.logprobs)) for number, one in enumerate(finished)]
    usage = add_usage([one.result.usage for one in finished])
    timings = _timings(finished[0].result.timings)
    return JSONResponse(ChatCompletion(**head, choices=choices, usage=usage, timings=timings).model_dump())


def read_chat(body: ChatRequest, images: ImageReader) -> GenerationRequest:
    """The request that a body asks for. Raises ApiError and OptionError."""
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise ApiError(400, "max_tokens and max_completion_tokens differ; give one", param="max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    options = Options(
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        repetition_penalty=body.repetition_penalty,
        seed=None if body.seed is None else body.seed % 2**31,
        stop=stop,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        answer_format=_format(body),
    )
    said = [_said(message, f"messages.{number}", images) for number, message in enumerate(body.messages)]
    return make_request(said, options)


def _format(body: ChatRequest) -> AnyFormat | None:
    wanted = body.response_format
    if wanted is None or isinstance(wanted, TextFormat):
        return None
    return json_format(wanted.json_schema.schema_ if isinstance(wanted, SchemaFormat) else None)


def _said(message: ChatMessage, where: str, images: ImageReader) -> Said:
    if isinstance(message, AssistantMessage):
        if message.content is None:
            raise ApiError(400, f"{where}.content is missing", param=f"{where}.content")
        parts = message.content
        text = (
            parts
            if isinstance(parts, str)
            else "".join(p.text if isinstance(p, TextPart) else p.refusal for p in parts)
        )
        return Said("assistant", text)
    if isinstance(message.content, str):
        return Said("user" if message.role == "user" else "system", message.content)
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    shown = [
        _image(part, f"{where}.content.{number}.image_url", images)
        for number, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    return Said("user" if message.role == "user" else "system", "\n".join(texts), shown)


def _image(part: ImagePart, where: str, images: ImageReader) -> Image:
    if isinstance(part.image_url, str):
        return images.read(part.image_url, where)
    given = part.image_url
    return images.read(given.url, f"{where}.url", detail=given.detail, num_crops=given.num_crops)


async def _stream(
    answers: Sequence[Answering], head: dict[str, Any], tokenizer: Tokenizer, *, logprobs: bool, include_usage: bool
) -> AsyncIterator[str]:
    def chunk(number: int, delta: Delta, reason: Any = None, token: Token | None = None) -> str:
        shown = ChoiceLogprobs(content=[_logprob(token, tokenizer)]) if logprobs and token is not None else None
        content = ChatChunk(
            **head, choices=[ChunkChoice(index=number, delta=delta, logprobs=shown, finish_reason=reason)]
        )
        return _dump(content, include_usage)

    try:
        for number in range(len(answers)):
            yield chunk(number, Delta(role="assistant", content=""))
        results: list[GenerationResult] = []
        async for number, found in read_tokens(answers):
            if isinstance(found, GenerationResult):
                results.append(found)
                yield chunk(number, Delta(), finish_reason(found))
            elif found.text or logprobs:
                yield chunk(number, Delta(content=found.text), None, found)
        if include_usage:
            last = ChatChunk(
                **head,
                choices=[],
                usage=add_usage([result.usage for result in results]),
                timings=_timings(results[0].timings),
            )
            yield _dump(last, include_usage)
        yield "data: [DONE]\n\n"
    except Phi3VError as exc:
        yield event(as_api_error(exc).content())
    finally:
        for answering in answers:
            answering.close()


def _dump(chunk: ChatChunk, include_usage: bool) -> str:
    content = chunk.model_dump()
    for choice in content["choices"]:
        choice["delta"] = {name: value for name, value in choice["delta"].items() if value is not None}
    if not include_usage:
        del content["usage"]
    if chunk.timings is None:
        del content["timings"]
    return event(content)


def _choice(number: int, finished: Finished, tokenizer: Tokenizer, logprobs: bool) -> Choice:
    result = finished.result
    listed = ChoiceLogprobs(content=[_logprob(token, tokenizer) for token in finished.tokens]) if logprobs else None
    message = AnswerMessage(content=result.text)
    return Choice(index=number, message=message, logprobs=listed, finish_reason=finish_reason(result))


def finish_reason(result: GenerationResult) -> Any:
    """OpenAI's word. An answer that was cancelled has no reader who could see another."""
    return "length" if result.finish_reason == "length" else "stop"


def _logprob(token: Token, tokenizer: Tokenizer) -> TokenLogprob:
    top = [_top(one, value, tokenizer) for one, value in token.likely]
    own = _top(token.id, token.logprob if token.logprob is not None else 0.0, tokenizer)
    return TokenLogprob(**own.model_dump(), top_logprobs=top)


def _top(token: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    piece = tokenizer.piece(token)
    # JSON has no -inf; OpenAI sends this for what is as good as impossible.
    return TopLogprob(token=piece.decode(errors="replace"), logprob=max(logprob, -9999.0), bytes=list(piece))


def _timings(timings: Timings) -> TimingsSent:
    return TimingsSent(**{name: getattr(timings, name) for name in TimingsSent.model_fields})


def add_usage(used: Sequence[Usage]) -> UsageSent:
    """The tokens of several answers to one prompt, which counts once, as OpenAI does it."""
    first = used[0]
    completion = sum(usage.completion_tokens for usage in used)
    details = PromptDetails(cached_tokens=first.cached_tokens, image_tokens=first.image_tokens)
    return UsageSent(
        prompt_tokens=first.prompt_tokens,
        completion_tokens=completion,
        total_tokens=first.prompt_tokens + completion,
        prompt_tokens_details=details,
    )
