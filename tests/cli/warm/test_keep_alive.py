"""How long a warm engine stays, and what `ask --keep-alive` does about it."""

import json

import pytest
from warm_home import SHORT, Home, needs_unix_sockets, until

pytestmark = needs_unix_sockets


def test_it_is_gone_after_its_idle_time(own: Home) -> None:
    with own.warm("--keep-alive", "1s"):
        until(lambda: not list(own.sockets.glob("engine-*")))


def test_ask_leaves_an_engine_behind_and_changes_its_idle_time(own: Home) -> None:
    try:
        first = json.loads(own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "5m").stdout)
        assert first["timings"]["load_s"] > 0
        (status,) = own.status()
        assert (status["keep_alive_s"], status["answered"]) == (300.0, 1)
        second = json.loads(own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "forever").stdout)
        assert (second["timings"]["load_s"], second["text"]) == (0.0, first["text"])
        assert [status["keep_alive_s"] for status in own.status()] == [None]
        last = own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "0")
        assert json.loads(last.stdout)["warm"] is True
        until(lambda: own.status() == [])
    finally:
        own.run("warm", "--stop")


def test_keep_alive_0_starts_no_engine(own: Home) -> None:
    done = own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "0")
    assert json.loads(done.stdout)["warm"] is False
    assert not own.sockets.exists()
    refused = own.run("warm", "--keep-alive", "0s")
    assert refused.returncode == 2
    assert b"10m" in refused.stderr


def test_what_is_wrong_is_said_before_an_engine_is_left_behind(own: Home) -> None:
    (own.root / "garbage.png").write_bytes(b"garbage")
    for arguments in (("hi", "garbage.png"), ("hi", "--model", "no/such/model")):
        done, plain = (own.run("ask", *arguments, *more) for more in (("--keep-alive", "5m"), ()))
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert own.status() == []


@pytest.mark.parametrize("given", ["10x", "-5", "m", ""])
def test_a_duration_that_is_none_is_a_usage_error(own: Home, given: str) -> None:
    for command in (["warm"], ["ask", "hi"]):
        done = own.run(*command, "--keep-alive", given)
        assert done.returncode == 2
        assert b"10m" in done.stderr
