"""Who answers `llm`: a server of this user's, a warm engine, or the model loaded for as long as `llm` runs."""

from __future__ import annotations

import atexit
import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from phi3v.errors import WarmEngineError
from phi3v.machine.device import wanted_device
from phi3v.models.folder import ModelDir
from phi3v.models.local import resolve_model

from ..answering import Answerer, LoadedEngine, open_answer
from ..image_check import check_images
from ..notices import check_request, say
from ..serve.announce import find_server
from .server import ServerLostError, ask_server

if TYPE_CHECKING:
    from pathlib import Path

    from phi3v import GenerationRequest, GenerationResult
    from phi3v.machine.device_table import DeviceName


@dataclass(frozen=True, slots=True)
class _KeptEngine(LoadedEngine):
    """A model that stays loaded for the next question of a chat."""

    def close(self) -> None:
        """Nothing: `atexit` closes the engine."""


def answer_tokens(
    name: str | None, device: str | None, request: GenerationRequest
) -> Generator[str, None, GenerationResult]:
    """Yield the text of an answer as it comes, and return the result. Raises Phi3VError and click.UsageError."""
    wanted = cast("DeviceName", wanted_device(device))
    path = resolve_model(name, wanted)
    check_request(ModelDir.open(path), request)
    check_images(request.images)
    server = _find_server(path) if device is None else None
    if server is not None:
        try:
            result = yield from ask_server(*server, request)
        except ServerLostError as exc:
            say(f"the server at {server[0]} is lost ({exc}); loading the model here")
        else:
            _tell(result)
            return result
    with open_answer(request, name, wanted, load_here=lambda: _load(name, wanted)) as answer:
        for token in answer:
            yield token.text
        _tell(answer.result)
        return answer.result


def _find_server(path: Path) -> tuple[str, str] | None:
    try:
        return find_server(path)
    except WarmEngineError as exc:
        say(str(exc))
        return None


@lru_cache(maxsize=1)
def _load(name: str | None, device: DeviceName) -> _KeptEngine:
    """In a process of its own, which keeps the images and turns that it has read."""
    import phi3v

    began = time.perf_counter()
    engine = phi3v.load(name, device, process=True)
    atexit.register(engine.close)
    return _KeptEngine(engine, Answerer(engine.model, engine.device, time.perf_counter() - began, warm=False))


def _tell(result: GenerationResult) -> None:
    for note in result.notes:
        say(note)
    if result.finish_reason == "length":
        spent = result.usage.completion_tokens
        say(f"the answer was cut off after {spent} tokens; -o max_new_tokens {2 * spent} lets it go on")
