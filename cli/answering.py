"""Who answers `phi3v ask`: a warm engine that fits, else the model loaded in this process. The answer is the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from phi3v.closing import Closing
from phi3v.errors import ImageError, ImageFetchError, Phi3VError, WarmEngineError

from .image_check import check_images
from .interrupts import Interrupt
from .notices import say
from .warm.client import EngineLostError, PendingAnswer, WarmEngine, WarmStream, find
from .warm.place import any_socket
from .warm.wire import request_message

if TYPE_CHECKING:
    from phi3v import Engine, GenerationRequest, Token
    from phi3v.images.load import ImageSource
    from phi3v.machine.device_table import DeviceName
    from phi3v.models.folder import ModelDir


@dataclass(frozen=True, slots=True)
class Answerer:
    """Which model answers, and where. `load_s`: seconds until it was loaded. `warm`: it is in another process."""

    model: ModelDir
    device: str
    load_s: float
    warm: bool


@dataclass(frozen=True, slots=True)
class LoadedEngine(Closing):
    """A model loaded in this process."""

    engine: Engine
    answerer: Answerer

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class _AskedEngine(Closing):
    """A warm engine that was sent the request. `stream` is its answer, or why an image could not be fetched."""

    engine: WarmEngine
    answerer: Answerer
    stream: WarmStream | ImageFetchError

    def close(self) -> None:
        """End the connection. The engine then cancels an unfinished answer."""
        self.engine.close()


def load_engine(model: str | None, device: DeviceName, images: Sequence[ImageSource]) -> LoadedEngine:
    """Check the images, then load the model in this process; Ctrl-C kills the process meanwhile. Raises Phi3VError."""
    import phi3v

    check_images(images)
    began = time.perf_counter()
    with Interrupt(ends_program=True):
        engine = phi3v.load(model, device)
    load_s = time.perf_counter() - began
    return LoadedEngine(engine, Answerer(engine.model, engine.device, load_s, warm=False))


def open_answer(
    request: GenerationRequest,
    model: str | None,
    device: DeviceName,
    *,
    use_warm: bool = True,
    keep_alive_s: float | None = None,
    streams: bool = True,
    load_here: Callable[[], LoadedEngine] | None = None,
) -> OpenAnswer:
    """Have a request answered wherever that is quickest, and return the answer; close it when done. Raises Phi3VError.

    With `use_warm` a warm engine is looked for first. `keep_alive_s` is its idle time from now on; if there is no warm
    engine, one is started. 0 starts none, and ends one that is there after this answer; None changes nothing. `streams`
    says that the text is printed as it comes: the answer cannot restart once part of it was printed. `load_here` loads
    the model in place of `load_engine`.
    """
    load_here = load_here or partial(load_engine, model, device, request.images)
    asked = _ask_warm_engine(request, model, device, keep_alive_s) if use_warm else None
    return OpenAnswer(request, asked or load_here(), load_here, streams)


class OpenAnswer(PendingAnswer, Closing):
    """The tokens of one answer, like TokenStream, from a warm engine or from the model loaded here.

    If the warm engine is lost before any text was printed, the model is loaded here and the answer starts again. Later
    that raises WarmEngineError.
    """

    def __init__(
        self,
        request: GenerationRequest,
        source: LoadedEngine | _AskedEngine,
        load_here: Callable[[], LoadedEngine],
        streams: bool,
    ) -> None:
        self._request = request
        self._source = source
        self._load_here = load_here
        self._streams = streams

    @property
    def answerer(self) -> Answerer:
        """Who answers. That changes when the warm engine is lost."""
        return self._source.answerer

    def __iter__(self) -> Iterator[Token]:
        if self._result is not None:
            return
        if isinstance(self._source, _AskedEngine):
            yield from self._receive(self._source.stream)
        if isinstance(self._source, LoadedEngine):
            with self._source.engine.stream_request(self._request) as stream:
                yield from stream
                self._result = stream.result

    def _receive(self, stream: WarmStream | ImageFetchError) -> Iterator[Token]:
        """Yield the warm engine's tokens; if it is lost, put the model loaded here in its place."""
        if isinstance(stream, ImageFetchError):
            raise stream
        printed = False
        try:
            for token in stream:
                printed = printed or bool(self._streams and token.text)
                yield token
            self._result = stream.result
        except EngineLostError as exc:
            if printed:
                raise WarmEngineError(
                    f"the warm engine was lost in the middle of the answer ({exc}); what was printed is not all of it: "
                    "ask again"
                ) from exc
            _say_lost(exc)
            self._source.close()
            self._source = self._load_here()

    def close(self) -> None:
        """Free the model that was loaded here, or leave the warm engine, which cancels an unfinished answer."""
        self._source.close()


def _ask_warm_engine(
    request: GenerationRequest, model: str | None, device: DeviceName, keep_alive_s: float | None
) -> _AskedEngine | None:
    """Send the request to a warm engine and wait until it starts on it; None when the model must be loaded here."""
    if not keep_alive_s and not any_socket():
        return None
    unfetched: ImageFetchError | None = None
    try:
        message, images = request_message(request)
    except ImageFetchError as exc:
        unfetched = exc  # raised after the model is announced, as it is where the engine here fetches the image
    except (ImageError, TypeError):
        return None  # the engine here refuses the image, or takes what JSON cannot carry
    found = _find_engine(request.images, model, device, keep_alive_s)
    if found is None:
        return None
    engine, load_s = found
    answerer = Answerer(engine.model, engine.device, load_s, warm=True)
    try:
        if unfetched is not None:
            check_images(request.images)  # a bad file is reported before it, as load_engine does
            return _AskedEngine(engine, answerer, unfetched)
        return _AskedEngine(engine, answerer, engine.ask(message, images, keep_alive_s))
    except EngineLostError as exc:
        _say_lost(exc)
        engine.close()
        return None
    except Phi3VError:
        engine.close()
        raise


def _find_engine(
    images: Sequence[ImageSource], model: str | None, device: DeviceName, keep_alive_s: float | None
) -> tuple[WarmEngine, float] | None:
    """Find a warm engine, or start one if it is to be kept alive. Return it and the seconds that starting it took."""
    engine = find(model, device, say)
    if engine is not None or not keep_alive_s:
        return None if engine is None else (engine, 0.0)
    from .warm.start import leave_behind

    began = time.perf_counter()
    check_images(images)
    try:
        leave_behind(model, device, keep_alive_s)
    except WarmEngineError as exc:
        say(f"no warm engine is left behind: {exc}")
        return None
    engine = find(model, device, say)
    return None if engine is None else (engine, time.perf_counter() - began)


def _say_lost(exc: EngineLostError) -> None:
    say(f"the warm engine was lost ({exc}); loading the model here")
