"""The client's side: find an engine that fits, send it a request, and read its answer as a stream of tokens.

Loads neither numpy nor an engine, because most of the time from process start to the first token goes into imports.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from phi3v import GenerationResult, Token
from phi3v.errors import InferenceError, WarmEngineError

from .frames import FrameError, Message, receive, send
from .identity import greeting, typed_folder
from .place import same_user, sockets, supported
from .wire import read_error, read_model, read_result

if TYPE_CHECKING:
    from phi3v.models.folder import ModelDir

_PATIENCE_S = 5.0
"""How long to wait for a greeting's answer. The server computes nothing, so a live one answers at once."""

Say = Callable[[str], None]
"""Prints a line for the person at the terminal."""


class EngineLostError(Exception):
    """The engine went away before its answer was complete. The command line handles it; no caller of phi3v sees it."""


class WarmEngine:
    """A connection to an engine that fits. It takes one request."""

    def __init__(self, connection: socket.socket, welcome: Message, typed: Path | None, say: Say) -> None:
        self.model: ModelDir = read_model(welcome["model"], typed or Path(welcome["path"]))
        self.device = str(welcome["device"])
        self._connection = connection
        self._say = say

    def ask(self, request: Message, images: list[bytes], keep_alive_s: float | None) -> WarmStream:
        """Send a request (wire.request_message) and the engine's new idle time; None leaves that as it is.

        Waits until the engine begins with the request. Raises ImageError for a file that is not an image, and
        EngineLostError.
        """
        try:
            send(self._connection, {"request": request, "keep_alive_s": keep_alive_s}, *images)
        except (FrameError, OSError) as exc:
            raise EngineLostError(str(exc)) from exc
        stream = WarmStream(self._connection, self._say)
        stream.begin()
        return stream

    def close(self) -> None:
        """End the connection. The engine then cancels an unfinished answer."""
        self._connection.close()


class PendingAnswer:
    """An answer whose result is there once its tokens have been iterated."""

    _result: GenerationResult | None = None

    @property
    def result(self) -> GenerationResult:
        """The finished answer. Raises InferenceError while tokens are still to come."""
        if self._result is None:
            raise InferenceError("the answer is not finished: iterate the stream to its end first")
        return self._result


class WarmStream(PendingAnswer):
    """The tokens of one answer as they come over a connection. Raises EngineLostError if they end too early."""

    def __init__(self, connection: socket.socket, say: Say) -> None:
        self._connection = connection
        self._say = say

    def begin(self) -> None:
        """Wait until the engine begins with the request; see WarmEngine.ask."""
        while (message := self._receive())["event"] != "begun":
            self._read(message)

    def __iter__(self) -> Iterator[Token]:
        while self._result is None:
            token = self._read(self._receive())
            if token is not None:
                yield token

    def _receive(self) -> Message:
        try:
            return receive(self._connection)[0]
        except (FrameError, OSError) as exc:
            raise EngineLostError(str(exc)) from exc

    def _read(self, message: Message) -> Token | None:
        """Return the token in a message, or do what another message says."""
        event = message["event"]
        if event == "token":
            return Token(message["id"], message["text"])
        if event == "waiting":
            others = message["before"]
            self._say(f"the warm engine is answering {others} other question{'s' * (others != 1)} first; waiting")
        elif event == "result":
            self._result = read_result(message["result"])
        elif event == "error":
            raise read_error(message)
        else:
            raise EngineLostError(str(message.get("reason")))
        return None


def find(model: str | os.PathLike[str] | None, device: str, say: Say) -> WarmEngine | None:
    """Find a warm engine that answers as this process would after loading `model`; None if there is none.

    Says why an engine that is there cannot be used, unless it simply holds another model.
    """
    try:
        places = sockets() if supported() else []
    except WarmEngineError as exc:
        say(str(exc))
        return None
    found = (_greet(place, model, device, say) for place in places)
    return next((engine for engine in found if engine is not None), None)


def _greet(place: Path, model: str | os.PathLike[str] | None, device: str, say: Say) -> WarmEngine | None:
    try:
        connection = connect(place)
        if connection is None:
            return None
        welcome = exchange(connection, greeting(model, device))
        if welcome["event"] == "welcome":
            connection.settimeout(None)
            return WarmEngine(connection, welcome, typed_folder(model), say)
        if welcome["say"]:
            say(f"a warm engine is not used: {welcome['reason']}")
        connection.close()
    except (WarmEngineError, EngineLostError, KeyError) as exc:
        say(f"a warm engine is not used: {exc}")
    return None


def connect(place: Path) -> socket.socket | None:
    """Connect to this user's engine at a socket; None if nothing listens there.

    Removes the socket if it is left over from a dead process. Raises WarmEngineError if it is another user's.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE_S)
    try:
        connection.connect(str(place))
    except OSError as exc:
        connection.close()
        if isinstance(exc, ConnectionRefusedError):  # left behind by a process that was killed
            place.unlink(missing_ok=True)
        return None
    if not same_user(connection):
        connection.close()
        raise WarmEngineError(f"{place} is offered by another user; remove it")
    return connection


def exchange(connection: socket.socket, message: Message) -> Message:
    """Send one message and return the answer. Raises EngineLostError."""
    try:
        send(connection, message)
        return receive(connection)[0]
    except (FrameError, OSError) as exc:
        connection.close()
        raise EngineLostError(f"it does not answer ({exc})") from exc
