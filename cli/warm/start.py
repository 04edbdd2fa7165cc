"""Start and end warm engines: in this process, or in one that is left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from phi3v.errors import WarmEngineError
from phi3v.machine.child_process import child_command, child_environment

from .client import EngineLostError, connect, exchange, find
from .frames import Message
from .place import check_folder, socket_path, sockets, supported

_LOOK_EVERY_S = 0.02
_ENDING_S = 10.0
"""How long an engine may take to end: its worker is killed, whatever it is doing."""


def offer(model: str | None, device: str, keep_alive_s: float, on_ready: Callable[[Message], None]) -> bool:
    """Be a warm engine until it is told to end or its idle time is over. Raises Phi3VError.

    Returns False at once if there is already an engine that would answer the same clients.
    """
    import asyncio

    from phi3v.models.local import resolve_model

    from .server import Server

    require_support()
    with _one_at_a_time() as begun:
        engine = find(model, device, say=lambda _: None)
        if engine is not None:
            engine.close()
            return False

        def ready(status: Message) -> None:
            begun()
            on_ready(status)

        server = Server(resolve_model(model, device).absolute(), device, keep_alive_s, ready)
        os.chdir(socket_path(os.getpid()).parent)  # the folder it was started in may be removed
        asyncio.run(server.run())
    return True


def leave_behind(model: str | None, device: str, keep_alive_s: float) -> None:
    """Start `phi3v warm` in a session of its own and wait until it listens. Raises WarmEngineError."""
    require_support()
    arguments = ["warm", "--device", device, "--keep-alive", str(keep_alive_s), *(["--model", model] if model else [])]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            child_command("phi3v", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env=child_environment(),
        )
        while process.poll() is None and not _listens(process.pid):
            time.sleep(_LOOK_EVERY_S)
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise WarmEngineError(lines[-1].removeprefix("Error: ") if lines else f"status {process.returncode}")
        process.returncode = 0  # it lives on; without this, Popen would warn that nobody waits for it


def _listens(pid: int) -> bool:
    """Return whether the engine listens. Its socket's name alone says nothing: a dead process may have had this id."""
    connection = connect(socket_path(pid))
    if connection is not None:
        connection.close()
    return connection is not None


def require_support() -> None:
    """Raise WarmEngineError where there can be no warm engine."""
    if not supported():
        raise WarmEngineError(
            "a warm engine needs Unix sockets, which this system does not offer; `phi3v ask` loads the model each time"
        )
    check_folder(create=True)


def engines() -> list[Message]:
    """Return the status of every warm engine of this user. Raises WarmEngineError."""
    return [status for place in sockets() if (status := _ask(place, {"op": "status"})) is not None]


def stop() -> list[int]:
    """End every warm engine of this user, wait until their processes have ended, and return the process ids.

    Raises WarmEngineError.
    """
    return [
        answer["pid"] for place in sockets() if (answer := _ask(place, {"op": "stop"}, until_gone=True)) is not None
    ]


def _ask(place: Path, message: Message, *, until_gone: bool = False) -> Message | None:
    connection = connect(place)
    if connection is None:
        return None
    with closing(connection):
        try:
            answer = exchange(connection, message)
        except EngineLostError as exc:
            raise WarmEngineError(f"{place}: {exc}; end its process, whose id is in the name") from exc
        if until_gone:
            _wait_until_gone(answer["pid"], connection)
        return answer


def _wait_until_gone(pid: int, connection: socket.socket) -> None:
    """Wait until the system closes the other end, which the server leaves to it: then the process's memory is free.

    Unlike a process id, which the system may give to another process, the connection cannot mean another engine.
    """
    connection.settimeout(_ENDING_S)
    try:
        connection.recv(1)
    except TimeoutError as exc:
        raise WarmEngineError(
            f"the engine in process {pid} was told to end and has not in {_ENDING_S:g} s; run: kill -9 {pid}"
        ) from exc
    except OSError:
        pass  # reset: it has ended too


@contextmanager
def _one_at_a_time() -> Iterator[Callable[[], None]]:
    """Hold a lock until the block ends or calls what it is given.

    Two engines that start at once would load the same model twice: the second waits until the first listens or fails.
    """
    import fcntl

    with (socket_path(os.getpid()).parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(lock, fcntl.LOCK_UN)
