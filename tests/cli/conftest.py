"""The command line: in this process on a fake backend, and what it answers in one of its own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_cli import FakeCli
from places import ROOT
from processes import PATIENCE_S, PHI3V
from serve_process import EXAMPLES


@pytest.fixture
def fake_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakeCli]:
    """Makes a command line whose models answer from scripts, as FakeBackend takes them. No warm engine is found."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PHI3V_MODEL", raising=False)
    return lambda *scripts, **changes: FakeCli(monkeypatch, *scripts, **changes)


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
