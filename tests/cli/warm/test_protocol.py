"""What is no client of ours, or a hostile one, harms neither the engine nor the next client."""

import contextlib
import json
import os
import socket
import struct
from typing import Any

import pytest
from warm_home import SHORT, Home, greet, needs_unix_sockets, patched, until

from phi3v.cli.warm.frames import pack, receive, send
from phi3v.cli.warm.identity import greeting

pytestmark = needs_unix_sockets


def test_nothing_is_sent_after_the_last_byte_of_a_frame() -> None:
    class Closing(socket.socket):
        """Its other end closes as soon as it has the whole frame."""

        def sendall(self, data: Any, flags: int = 0) -> None:
            super().sendall(data, flags)
            other.close()

    one, other = socket.socketpair()
    with Closing(fileno=one.detach()) as sending:
        send(sending, {"op": "a picture without a byte"}, b"")


HEAD = struct.Struct("!4sIQ")


@pytest.mark.parametrize(
    "garbage",
    [
        os.urandom(64),
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD.pack(b"p3vw", 1 << 31, 0),
        HEAD.pack(b"p3vw", 2, 1 << 60) + b"{}",
        HEAD.pack(b"p3vw", 4, 0) + b"[[[[",
        HEAD.pack(b"p3vw", 2, 0) + b"[]",
        HEAD.pack(b"p3vw", 400_000, 0) + b"[" * 400_000,
        HEAD.pack(b"p3vw", 9, 5) + b'{"op": 1}' + b"12345",
        b"p3",
    ],
)
def test_what_is_no_client_is_refused_and_the_engine_lives(shared: Home, garbage: bytes) -> None:
    with greet(shared) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert len(shared.status()) == 1


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"request": 7},
        {"request": {"prompt": "hi"}},
        {"request": {"prompt": "hi", "images": [{"name": "x", "bytes": -5}], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [{"name": "x", "bytes": 5}], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [], "sampling": {"heat": 1}}},
        {"request": {"prompt": 5, "images": [], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [], "sampling": {}, "max_new_tokens": -1}},
    ],
)
def test_a_request_that_is_none_is_an_error_of_that_client(shared: Home, request_: dict[str, Any]) -> None:
    worker = shared.worker()
    with patched(shared):
        hello = greeting(str(shared.model), "cpu")
    with greet(shared, **hello) as connection:
        assert receive(connection)[0]["event"] == "welcome"
        connection.sendall(pack(request_))
        answer, _ = receive(connection)
    assert (answer["event"], answer["kind"]) == ("error", "OptionError")
    assert shared.worker() == worker


def test_clients_that_send_nothing_hold_up_nobody(shared: Home) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(greet(shared)).sendall(b"p3")
        assert json.loads(shared.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_too_many_clients_are_no_crash(shared: Home) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(greet(shared))
        done = shared.run("ask", "hi", *SHORT, "--json")
        assert json.loads(done.stdout)["warm"] is False
        assert b"others are asking" in done.stderr
    until(lambda: json.loads(shared.run("ask", "hi", *SHORT, "--json").stdout)["warm"])
