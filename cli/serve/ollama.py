"""What tools look for of Ollama's API: /api/version, tags, show, ps, chat, generate."""

from __future__ import annotations

import datetime
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from phi3v import GenerationRequest, GenerationResult
from phi3v.errors import Phi3VError
from phi3v.models.folder import ModelDir

from .answers import open_answers, read_all, read_tokens
from .body import read_body
from .chat import finish_reason
from .conversation import AnyFormat, Options, Said, json_format, make_request
from .errors import ApiError, as_api_error
from .images import ImageReader
from .ollama_wire import OllamaChat, OllamaGenerate, OllamaOptions, OllamaShow
from .service import Answering, Service
from .sse import event_stream, unless_gone

SPOKEN_VERSION = "0.12.0"
"""The version of Ollama's API that this follows; clients compare it."""

_DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}

Say = Callable[[str], dict[str, Any]]


async def version(request: Request) -> JSONResponse:
    """The version of the API."""
    return JSONResponse({"version": SPOKEN_VERSION})


async def tags(request: Request) -> JSONResponse:
    """The models that are here: one."""
    return JSONResponse({"models": [_describe(request.app.state.service)]})


async def ps(request: Request) -> JSONResponse:
    """The models that are loaded."""
    service: Service = request.app.state.service
    if not service.loaded:
        return JSONResponse({"models": []})
    ends = service.used_at + min(service.keep_alive_s, 100 * 365 * 86400.0)
    size = sum(service.folder.graphs.values())
    return JSONResponse({"models": [_describe(service) | {"expires_at": _time(ends), "size_vram": size}]})


async def show(request: Request) -> JSONResponse:
    """What a model is and can."""
    service: Service = request.app.state.service
    body = await read_body(request, OllamaShow, service.settings.body_timeout_s)
    service.check_model(body.model or body.name)
    folder = service.folder
    info = {
        "general.architecture": "phi3v",
        "phi3v.context_length": folder.context_length,
        "phi3v.embedding_length": folder.hidden_size,
    }
    return JSONResponse(
        {
            "modelfile": "",
            "parameters": "",
            "template": "<|user|>\n{{ .Prompt }}<|end|>\n<|assistant|>\n",
            "details": _details(folder),
            "model_info": info,
            "capabilities": ["completion", "vision"],
            "modified_at": _time(service.started_at),
        }
    )


async def chat(request: Request) -> Response:
    """Answer a conversation; a stream of JSON lines unless told otherwise."""
    service: Service = request.app.state.service
    body = await read_body(request, OllamaChat, service.settings.body_timeout_s)
    service.check_model(body.model)
    say: Say = lambda text: {"message": {"role": "assistant", "content": text}}  # noqa: E731
    if not body.messages:
        return await _load_only(service, body.keep_alive, say)
    images: ImageReader = request.app.state.images
    said = [
        Said(message.role, message.content, _read_images(images, message.images, f"messages.{number}.images"))
        for number, message in enumerate(body.messages)
    ]
    return await _answer(request, make_request(said, _options(body.options, body.format)), body, say)


async def generate(request: Request) -> Response:
    """Answer one prompt; a stream of JSON lines unless told otherwise."""
    service: Service = request.app.state.service
    body = await read_body(request, OllamaGenerate, service.settings.body_timeout_s)
    service.check_model(body.model)
    say: Say = lambda text: {"response": text}  # noqa: E731
    if not body.prompt and not body.images:
        return await _load_only(service, body.keep_alive, say)
    shown = _read_images(request.app.state.images, body.images, "images")
    said = [*([Said("system", body.system)] if body.system else []), Said("user", body.prompt, shown)]
    return await _answer(request, make_request(said, _options(body.options, body.format), "prompt"), body, say)


async def _load_only(service: Service, keep_alive: str | float | None, say: Say) -> Response:
    _set_keep_alive(service, keep_alive)
    reason = "load"
    if keep_alive is not None and _seconds(keep_alive) == 0:
        reason = "unload"
        service.unload()
    else:
        await service.begin_loading()
    return JSONResponse({"model": service.name, "created_at": _time(), **say(""), "done": True, "done_reason": reason})


async def _answer(request: Request, wanted: GenerationRequest, body: OllamaChat | OllamaGenerate, say: Say) -> Response:
    service: Service = request.app.state.service
    _set_keep_alive(service, body.keep_alive)
    began = time.perf_counter()
    answers = await unless_gone(request, open_answers(service, wanted))
    if body.stream is not False:
        return event_stream(_stream(answers, service.name, say, began), media_type="application/x-ndjson", ping="")
    [finished] = await unless_gone(request, read_all(answers))
    return JSONResponse(_last(service.name, finished.result, say(finished.result.text), began))


async def _stream(answers: list[Answering], model: str, say: Say, began: float) -> AsyncIterator[str]:
    try:
        async for _, found in read_tokens(answers):
            if isinstance(found, GenerationResult):
                yield _line(_last(model, found, say(""), began))
            elif found.text:
                yield _line({"model": model, "created_at": _time(), **say(found.text), "done": False})
    except Phi3VError as exc:
        yield _line({"error": as_api_error(exc).message})
    finally:
        for answering in answers:
            answering.close()


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def _last(model: str, result: GenerationResult, said: dict[str, Any], began: float) -> dict[str, Any]:
    times = result.timings
    return {
        "model": model,
        "created_at": _time(),
        **said,
        "done": True,
        "done_reason": finish_reason(result),
        "total_duration": _nanoseconds(time.perf_counter() - began),
        "load_duration": 0,
        "prompt_eval_count": result.usage.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(times.prefill_s),
        "eval_count": result.usage.completion_tokens,
        "eval_duration": _nanoseconds(times.decode_s),
    }


def _options(given: OllamaOptions | None, wanted: str | dict[str, Any] | None) -> Options:
    given = given or OllamaOptions()
    stop = (given.stop,) if isinstance(given.stop, str) else tuple(given.stop or ())
    most = given.num_predict
    return Options(
        max_new_tokens=None if most is None or most < 1 else most,  # Ollama's -1 and -2: no limit but its own
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        repetition_penalty=given.repeat_penalty,
        seed=None if given.seed is None else given.seed % 2**31,
        stop=stop,
        answer_format=_format(wanted),
    )


def _format(wanted: str | dict[str, Any] | None) -> AnyFormat | None:
    if not wanted:
        return None
    return json_format(None if isinstance(wanted, str) else wanted)


def _read_images(images: ImageReader, given: list[str] | None, where: str) -> list[Any]:
    return [images.read(image, f"{where}.{number}") for number, image in enumerate(given or [])]


def _set_keep_alive(service: Service, given: str | float | None) -> None:
    if given is not None:
        seconds = _seconds(given)
        service.keep_alive_s = math.inf if seconds < 0 else seconds


def _seconds(given: str | float) -> float:
    """Ollama's durations: seconds, or "5m"; below 0 for ever."""
    if isinstance(given, int | float):
        return float(given)
    found = _DURATION.fullmatch(given.strip())
    if found is None:
        raise ApiError(
            400, f"keep_alive is {given[:40]!r}; allowed: seconds, or 90s, 10m, 2h; -1 for ever", param="keep_alive"
        )
    return float(found[1]) * _UNITS[found[2]]


def _describe(service: Service) -> dict[str, Any]:
    folder = service.folder
    return {
        "name": f"{service.name}:latest",
        "model": f"{service.name}:latest",
        "modified_at": _time(service.started_at),
        "size": sum(folder.graphs.values()),
        "digest": "",
        "details": _details(folder),
    }


def _details(folder: ModelDir) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "onnx",
        "family": "phi3v",
        "families": ["phi3v"],
        "parameter_size": "",
        "quantization_level": folder.precision or "",
    }


def _time(seconds: float | None = None) -> str:
    when = (
        datetime.datetime.now(datetime.UTC)
        if seconds is None
        else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    )
    return when.isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
