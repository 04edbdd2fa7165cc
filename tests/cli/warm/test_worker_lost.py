"""A worker or server that dies or hangs costs time, and never half an answer taken for a whole one."""

import json
import os
import signal
from pathlib import Path

import pytest
from processes import PATIENCE_S
from warm_home import ENDLESS, RANDOM, SHORT, Home, exists, needs_unix_sockets, until

pytestmark = [pytest.mark.torch, pytest.mark.slow, needs_unix_sockets]


@pytest.fixture(scope="module")
def model(demo_model: Path) -> Path:
    return demo_model


def test_a_worker_that_does_not_hear_a_cancellation_is_replaced(own: Home) -> None:
    with own.warm():
        worker = own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            os.kill(worker, signal.SIGSTOP)  # as deaf as in a long prefill
            asking.kill()
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True
        assert own.worker() != worker
        assert not exists(worker)


def test_an_engine_that_dies_in_the_middle_of_an_answer_is_an_error(own: Home) -> None:
    with own.warm():
        server, worker = own.server(), own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            os.kill(server, signal.SIGKILL)
            asking.stdout.read()
            assert asking.wait(timeout=PATIENCE_S) == 1
            assert asking.stderr is not None
            assert "not all of it" in asking.stderr.read().decode().splitlines()[-1]
        until(lambda: not exists(worker))
        assert own.path().exists()
        done = own.run("ask", "hi", *SHORT)
        assert (done.returncode, own.path().exists() if list(own.sockets.glob("*.sock")) else False) == (0, False)


def test_a_worker_that_dies_before_the_first_word_costs_time_alone(own: Home) -> None:
    with own.warm():
        plain = own.run("ask", "hi", *SHORT, "--no-warm").stdout
        worker = own.worker()
        os.kill(worker, signal.SIGSTOP)
        with own.popen("ask", "hi", *SHORT) as asking:
            until(lambda: own.status()[0]["asking"] == 1)
            os.kill(worker, signal.SIGKILL)
            said, _ = asking.communicate(timeout=PATIENCE_S)
        assert (asking.returncode, said) == (0, plain)  # the next process answers what the first had not begun
        until(lambda: own.status()[0]["asking"] == 0)
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_json_begins_anew_because_nothing_was_printed(own: Home) -> None:
    with own.warm():
        server = own.server()
        os.kill(own.worker(), signal.SIGSTOP)  # the answer begins and cannot end
        with own.popen("ask", "hi", "--max-new-tokens", "3000", *RANDOM, "--json") as asking:
            until(lambda: own.status()[0]["asking"] == 1)
            os.kill(server, signal.SIGKILL)
            said, complained = asking.communicate(timeout=PATIENCE_S)
        assert asking.returncode == 0, complained
        assert json.loads(said)["usage"]["completion_tokens"] in range(1, 3001)
        assert json.loads(said)["warm"] is False
