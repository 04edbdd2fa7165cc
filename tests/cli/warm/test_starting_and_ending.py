"""A warm engine starts once, and signals and `--stop` end it and what it left behind."""

import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, started
from warm_home import SHORT, Home, exists, needs_unix_sockets, patched, until

from phi3v.cli.warm.frames import pack, receive
from phi3v.cli.warm.start import stop
from phi3v.errors import WarmEngineError

pytestmark = needs_unix_sockets


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_engine_cleanly(own: Home, number: signal.Signals) -> None:
    with own.popen("warm") as warm:
        assert warm.stderr is not None
        assert b"is warm on cpu" in warm.stderr.readline()
        worker = own.worker()
        warm.send_signal(number)
        assert warm.wait(timeout=PATIENCE_S) == 0
        assert warm.stderr.read() == b""
    assert not exists(worker)
    assert not list(own.sockets.glob("engine-*"))


def test_an_engine_that_does_not_end_is_an_error_that_says_what_to_do(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi3v.cli.warm.start._ENDING_S", 0.1)
    own.sockets.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener, patched(own):
        listener.bind(str(own.sockets / "engine-1.sock"))
        listener.listen()
        listener.settimeout(30)
        stopping = threading.Thread(target=stop_in_vain, args=(listener,), daemon=True)
        stopping.start()
        with pytest.raises(WarmEngineError, match="run: kill -9 4711"):
            stop()
        stopping.join(timeout=PATIENCE_S)


def stop_in_vain(listener: socket.socket) -> None:
    """An engine that says it ends, and does not."""
    connection, _ = listener.accept()
    with connection:
        receive(connection)
        connection.sendall(pack({"event": "stopping", "pid": 4711}))
        connection.recv(1)


def test_a_socket_left_behind_is_replaced_and_its_process_id_is_nobodys_to_signal(own: Home) -> None:
    own.sockets.mkdir(mode=0o700)
    with started(["sleep", "60"]) as stranger:  # has the id of an engine that was killed
        left_behind(own.sockets / f"engine-{stranger.pid}.sock")
        assert own.run("warm", "--stop").stderr == b""
        for pid in range(stranger.pid, stranger.pid + 300):  # the next engine's id is likely among these
            left_behind(own.sockets / f"engine-{pid}.sock")
        with own.warm():
            (status,) = own.status()
            assert own.server() == status["pid"] != stranger.pid
        assert stranger.poll() is None


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_a_signal_while_it_loads_ends_it_too(own: Home) -> None:
    with own.popen("warm") as warm:
        until((own.sockets / "lock").exists)
        time.sleep(0.5)
        warm.send_signal(signal.SIGTERM)
        assert warm.wait(timeout=PATIENCE_S) in (0, -signal.SIGTERM)
    assert not list(own.sockets.glob("engine-*"))


def test_two_that_start_at_once_leave_one_engine(own: Home) -> None:
    try:
        with own.popen("ask", "hi", *SHORT, "--keep-alive", "5m") as one, own.popen("warm", "--background") as two:
            assert one.communicate(timeout=PATIENCE_S)[0]
            assert two.wait(timeout=PATIENCE_S) == 0
        assert len(own.status()) == 1
    finally:
        own.run("warm", "--stop")


def test_a_model_that_does_not_load_is_one_line(own: Home) -> None:
    for arguments in ((), ("--background",)):
        done = own.run("warm", *arguments, "--model", "no/such/model")
        assert done.returncode == 1
        assert done.stderr.decode().count("\n") == 1
        assert "no/such/model" in done.stderr.decode()
