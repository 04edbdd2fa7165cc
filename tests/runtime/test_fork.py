"""An engine in a forked child: an error at once, and no hang or crash, not even when Python ends."""

import subprocess
import sys

import pytest
from platforms import needs_posix
from processes import PATIENCE_S

pytestmark = needs_posix

PROGRAM = """
import os, sys, warnings
import phi3v, phi3v.errors
warnings.simplefilter("ignore")
engine = phi3v.load("nano")
{before}
pid = os.fork()
if pid == 0:
    try:
        {child}
    except phi3v.errors.InferenceError as exc:
        assert "before a fork" in str(exc), exc
        print("refused", flush=True)
    {end}
_, status = os.waitpid(pid, 0)
print("status", status)
print(engine.generate("What is this?", [], max_new_tokens=2).finish_reason)
"""
BEFORE = {
    "fresh": "",
    "used": 'engine.generate("hi", max_new_tokens=2)',
    "streaming": 'stream = iter(engine.stream("hi", max_new_tokens=8)); next(stream)',
}
CHILD = {
    "closed": "engine.close()",
    "used": 'engine.generate("hi")',
    "in a session": "engine.session().ask('hi')",
    "left alone": "pass",
}
END = {"exit": "sys.exit(0)", "_exit": "os._exit(0)"}


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("child", ["closed", "used", "left alone"])
def test_a_forked_child_neither_hangs_nor_crashes(before: str, child: str, end: str) -> None:
    program = PROGRAM.format(before=BEFORE[before], child=CHILD[child], end=END[end])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    expected = (["refused"] if child != "left alone" else []) + ["status 0", "length"]
    assert done.stdout.split("\n")[:-1] == expected, done.stderr


def test_a_session_that_began_before_the_fork_is_refused_too() -> None:
    program = PROGRAM.format(
        before='session = engine.session(); session.ask("hi", max_new_tokens=2)',
        child='session.ask("again")',
        end="sys.exit(0)",
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.split("\n")[:2] == ["refused", "status 0"], done.stderr
