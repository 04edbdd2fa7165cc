"""One server with the built-in model for all tests of its APIs."""

import subprocess
from collections.abc import Iterator

import pytest
from places import ROOT
from processes import PATIENCE_S, PHI3V
from serve_process import EXAMPLES, ServeProcess, serving


@pytest.fixture(scope="session")
def server() -> Iterator[ServeProcess]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def cli_answers() -> dict[str, str]:
    """What the command line answers to README's questions."""
    answers = {}
    for question, names in EXAMPLES.items():
        images = [str(ROOT / "examples" / name) for name in names]
        command = [*PHI3V, "ask", question, *images, "--model", "nano", "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        answers[question] = done.stdout.strip()
    return answers
