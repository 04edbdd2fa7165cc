"""POST /v1/responses: OpenAI's Responses API, stateless: every request carries its whole conversation."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from phi3v import GenerationRequest, GenerationResult
from phi3v.errors import Phi3VError

from .answers import now, open_answers, read_all, read_tokens
from .body import read_body
from .conversation import AnyFormat, Options, Said, json_format, make_request
from .errors import as_api_error
from .images import ImageReader
from .responses_wire import InputImage, InputMessage, ResponsesRequest, SchemaFormat, TextFormat
from .service import Answering, Service
from .sse import event, event_stream, unless_gone


async def respond(request: Request) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    service: Service = request.app.state.service
    body = await read_body(request, ResponsesRequest, service.settings.body_timeout_s)
    service.check_model(body.model)
    wanted = read_responses(body, request.app.state.images)
    answers = await unless_gone(request, open_answers(service, wanted))
    draft = _Draft(body, service.name)
    if body.stream:
        return event_stream(_stream(answers, draft))
    [finished] = await unless_gone(request, read_all(answers))
    return JSONResponse(draft.finish(finished.result))


def read_responses(body: ResponsesRequest, images: ImageReader) -> GenerationRequest:
    """The request that a body asks for. Raises ApiError and OptionError."""
    options = Options(
        max_new_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        repetition_penalty=body.repetition_penalty,
        answer_format=_format(body),
    )
    said = [Said("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return make_request([*said, Said("user", body.input)], options, "input")
    said += [_said(message, f"input.{number}", images) for number, message in enumerate(body.input)]
    return make_request(said, options, "input")


def _format(body: ResponsesRequest) -> AnyFormat | None:
    wanted = None if body.text is None else body.text.format
    if wanted is None or isinstance(wanted, TextFormat):
        return None
    return json_format(wanted.schema_ if isinstance(wanted, SchemaFormat) else None)


def _said(message: InputMessage, where: str, images: ImageReader) -> Said:
    role: Any = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return Said(role, message.content)
    texts = [part.text for part in message.content if not isinstance(part, InputImage)]
    shown = [
        images.read(part.image_url, f"{where}.content.{number}.image_url", detail=part.detail, num_crops=part.num_crops)
        for number, part in enumerate(message.content)
        if isinstance(part, InputImage)
    ]
    return Said(role, "\n".join(texts), shown)


class _Draft:
    """A response object, before and after its answer."""

    def __init__(self, body: ResponsesRequest, model: str) -> None:
        self.item_id = f"msg_{uuid.uuid4().hex}"
        text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {}
        self._content = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": now(),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature or 0.0,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": body.user,
        }

    def begin(self) -> dict[str, Any]:
        """The response while it is made."""
        return dict(self._content)

    def item(self, status: str, text: str | None = None) -> dict[str, Any]:
        """The message that is its output."""
        content = [] if text is None else [self.part(text)]
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def part(self, text: str) -> dict[str, Any]:
        """The text of that message."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def finish(self, result: GenerationResult) -> dict[str, Any]:
        """The response with its answer."""
        cut = result.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        return self._content | {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self.item(status, result.text)],
            "usage": {
                "input_tokens": result.usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": result.usage.cached_tokens},
                "output_tokens": result.usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": result.usage.total_tokens,
            },
        }

    def fail(self, error: Phi3VError) -> dict[str, Any]:
        """The response whose answer could not be finished."""
        return self._content | {"status": "failed", "error": {"code": "server_error", "message": str(error)}}


async def _stream(answers: list[Answering], draft: _Draft) -> AsyncIterator[str]:
    numbers = itertools.count()

    def send(kind: str, **content: Any) -> str:
        return event({"type": kind, "sequence_number": next(numbers), **content}, kind)

    place = {"item_id": draft.item_id, "output_index": 0, "content_index": 0}
    try:
        yield send("response.created", response=draft.begin())
        yield send("response.in_progress", response=draft.begin())
        yield send("response.output_item.added", output_index=0, item=draft.item("in_progress"))
        yield send("response.content_part.added", **place, part=draft.part(""))
        async for _, found in read_tokens(answers):
            if not isinstance(found, GenerationResult):
                if found.text:
                    yield send("response.output_text.delta", **place, delta=found.text, logprobs=[])
                continue
            done = draft.finish(found)
            yield send("response.output_text.done", **place, text=found.text, logprobs=[])
            yield send("response.content_part.done", **place, part=draft.part(found.text))
            yield send("response.output_item.done", output_index=0, item=done["output"][0])
            yield send(f"response.{done['status']}", response=done)
    except Phi3VError as exc:
        yield send("response.failed", response=draft.fail(exc))
        yield send("error", **as_api_error(exc).content()["error"])
    finally:
        for answering in answers:
            answering.close()
