"""The engine behind `phi3v ask`: a warm one that fits, else the model loaded in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from phi3v.closing import Closing
from phi3v.errors import ImageError, ImageFetchError, WarmEngineError

from ..interrupts import Interrupt, killable
from .client import EngineLostError, PendingAnswer, find
from .place import any_socket
from .wire import request_message

if TYPE_CHECKING:
    from phi3v import Engine, GenerationRequest, Token
    from phi3v.models.folder import ModelDir

    from .client import WarmEngine, WarmStream
    from .frames import Message


class AskEngine(Closing):
    """Answers one request, wherever that is quickest; the answer is the same.

    `keep_alive_s` leaves a warm engine behind, started if there is none; 0 starts none, and has one that is there end
    with this answer, None leaves it as it is. `warm` False looks for none. `printing`:
    tokens are shown as they come, so that an answer cannot begin anew once there was text.
    """

    def __init__(
        self,
        request: GenerationRequest,
        model: str | None,
        device: str,
        *,
        warm: bool = True,
        keep_alive_s: float | None = None,
        printing: bool = True,
    ) -> None:
        self.printing = printing
        self._request = request
        self._named = (model, device)
        self._keep_alive_s = keep_alive_s
        self._local: Engine | None = None
        self._warm: WarmEngine | None = None
        self._stream: WarmStream | None = None
        self._unfetched: ImageFetchError | None = None
        self.load_s = 0.0
        """Seconds until the model was there; 0 when it was already."""
        if warm:
            self._find()
        if self._warm is None:
            self._load()

    @property
    def warm(self) -> bool:
        """Whether the answer comes from another process."""
        return self._warm is not None

    @property
    def model(self) -> ModelDir:
        """The model folder and its limits."""
        return self._engine.model

    @property
    def device(self) -> str:
        """Where the model runs."""
        return self._engine.device

    def stream_request(self, request: GenerationRequest) -> AskStream:
        """The stream of the answer to the request that this engine was made for; once."""
        return AskStream(self, request)

    def warm_stream(self) -> WarmStream | None:
        """The answer as it comes from the warm engine, if there is one. Raises ImageFetchError."""
        if self._unfetched is not None:
            raise self._unfetched
        return self._stream

    def local(self) -> Engine:
        """The model in this process; the warm engine is given up."""
        if self._warm is not None:
            self._warm.close()
            self._warm = self._stream = None
        if self._local is None:
            self._load()
        assert self._local is not None
        return self._local

    def close(self) -> None:
        """Free the model that was loaded here, or leave the warm engine, which cancels an unfinished answer."""
        for engine in (self._warm, self._local):
            if engine is not None:
                engine.close()

    @property
    def _engine(self) -> Engine | WarmEngine:
        return self._warm or self.local()

    def _find(self) -> None:
        """Look for a warm engine, start one where that was asked for, and have it begin."""
        if not any_socket() and not self._keep_alive_s:
            return
        try:
            encoded = request_message(self._request)
        except ImageFetchError as exc:
            encoded, self._unfetched = None, exc
        except (ImageError, TypeError):  # to be refused, or answered, here
            return
        self._warm = find(*self._named, say)
        if self._warm is None and self._keep_alive_s:
            self._leave_behind(self._keep_alive_s)
        if encoded is None:
            _check_pictures(self._request)
        elif self._warm is not None:
            self._begin(self._warm, *encoded)

    def _begin(self, engine: WarmEngine, message: Message, pictures: list[bytes]) -> None:
        try:
            self._stream = engine.ask(message, pictures, self._keep_alive_s)
        except EngineLostError as exc:
            say(f"the warm engine was lost ({exc}); loading the model here")
            engine.close()
            self._warm = None

    def _leave_behind(self, keep_alive_s: float) -> None:
        from .start import leave_behind

        began = time.perf_counter()
        _check_pictures(self._request)
        try:
            leave_behind(*self._named, keep_alive_s)
        except WarmEngineError as exc:
            say(f"no warm engine is left behind: {exc}")
            return
        self._warm = find(*self._named, say)
        self.load_s = time.perf_counter() - began

    def _load(self) -> None:
        """Load the model here, once what is wrong with the pictures is found."""
        import phi3v

        _check_pictures(self._request)
        began = time.perf_counter()
        model, device = self._named
        with Interrupt(ends_program=True):
            self._local = phi3v.load(model, device)  # type: ignore[arg-type]
        self.load_s = time.perf_counter() - began


class AskStream(PendingAnswer, Closing):
    """The tokens of one answer, from either place; like TokenStream.

    Where the warm engine is lost before any text was shown, the model is loaded here and the answer begins anew;
    afterwards that raises WarmEngineError.
    """

    def __init__(self, engine: AskEngine, request: GenerationRequest) -> None:
        self._engine = engine
        self._request = request

    def __iter__(self) -> Iterator[Token]:
        shown = False
        try:
            for token in self._warm_tokens():
                shown = shown or bool(self._engine.printing and token.text)
                yield token
        except EngineLostError as exc:
            if shown:
                raise WarmEngineError(
                    f"the warm engine was lost in the middle of the answer ({exc}); what was printed is not all of it: "
                    "ask again"
                ) from exc
            say(f"the warm engine was lost ({exc}); loading the model here")
            self._engine.local()
        if self._result is None:
            with self._engine.local().stream_request(self._request) as stream:
                yield from killable(stream)
                self._result = stream.result

    def _warm_tokens(self) -> Iterator[Token]:
        stream = self._engine.warm_stream()
        if stream is not None:
            yield from stream
            self._result = stream.result

    def close(self) -> None:
        """Nothing to free: the engine's `close` ends an unfinished answer."""


def say(line: str) -> None:
    """A line for the person at the terminal."""
    click.echo(f"phi3v: {line}", err=True)


def _check_pictures(request: GenerationRequest) -> None:
    from phi3v.images.load import check_image

    for image in request.images:
        if isinstance(image, str):
            check_image(image)
