"""What comes in the middle of a long answer: Ctrl-C, kills, `--stop`, slow readers, other clients."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import MAIN, PATIENCE_S
from warm_home import ENDLESS, RANDOM, SHORT, Home, exists, greet, holds_memory, needs_unix_sockets, patched, until

from phi3v.cli.warm.start import stop

pytestmark = [pytest.mark.torch, pytest.mark.slow, needs_unix_sockets]


@pytest.fixture(scope="module")
def model(demo_model: Path) -> Path:
    return demo_model


def test_ctrl_c_ends_the_answer_and_not_the_engine(own: Home) -> None:
    with own.warm():
        worker = own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            asking.send_signal(signal.SIGINT)
            asking.stdout.read()
            assert asking.wait(timeout=PATIENCE_S) == 130
            assert asking.stderr is not None
            assert asking.stderr.read().decode().endswith("\ninterrupted\n")
        until(lambda: own.status()[0]["asking"] == 0)
        assert own.worker() == worker
        assert own.run("ask", "hi", *SHORT).stdout == own.run("ask", "hi", *SHORT, "--no-warm").stdout


def test_a_client_that_is_killed_frees_the_engine_for_the_next(own: Home) -> None:
    with own.warm():
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            asking.kill()
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_two_at_once_are_answered_in_turn_and_the_second_is_told(shared: Home) -> None:
    questions = [("hi", "--max-new-tokens", "1000", *RANDOM), ("ho", "photo.webp", *SHORT), ("ha", *SHORT)]
    os.kill(shared.worker(), signal.SIGSTOP)  # the first answer does not end before the others are there
    with contextlib.ExitStack() as stack:
        try:
            asking = [stack.enter_context(shared.popen("ask", *question)) for question in questions]
            until(lambda: shared.status()[0]["asking"] == len(questions), seconds=60)
        finally:
            os.kill(shared.worker(), signal.SIGCONT)
        done = [process.communicate(timeout=PATIENCE_S) for process in asking]
    for question, (said, _) in zip(questions, done, strict=True):
        assert said == shared.run("ask", *question, "--no-warm").stdout
    assert sum(b"waiting" in complained for _, complained in done) == len(questions) - 1


def test_a_reader_that_leaves_early_or_is_slow_frees_the_engine(own: Home) -> None:
    with own.warm(), own.popen("ask", "hi", "--max-new-tokens", "3000", *RANDOM) as slow:
        assert slow.stdout is not None
        slow.stdout.read(1)
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True
        said, _ = slow.communicate(timeout=PATIENCE_S)
        assert slow.returncode == 0
        assert len(said) > 100


def test_stop_returns_when_the_processes_have_ended_even_in_the_middle_of_an_answer(own: Home) -> None:
    with own.warm():
        server, worker = own.server(), own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking, greet(own):  # one more client, which says nothing
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            with patched(own):
                assert stop() == [server]
            assert (holds_memory(server), holds_memory(worker)) == (False, False)
            until(lambda: not exists(server))
            asking.stdout.read()
            assert asking.wait(timeout=PATIENCE_S) == 1


def test_a_job_that_ignores_interrupts_goes_on(shared: Home) -> None:
    command = f"'{sys.executable}' -c '{MAIN}' ask hi --max-new-tokens 3000"
    line = f"trap '' INT; {command} & sleep 0.5; kill -INT $!; wait $!"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=os.environ | shared.env, timeout=PATIENCE_S)
    assert (done.returncode, b"interrupted" in done.stderr) == (0, False)
