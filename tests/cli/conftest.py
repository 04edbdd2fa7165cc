"""The command line in this process, on a fake backend."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_cli import FakeCli


@pytest.fixture
def fake_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakeCli]:
    """Makes a command line whose models answer from scripts, as FakeBackend takes them. No warm engine is found."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PHI3V_MODEL", raising=False)
    return lambda *scripts, **changes: FakeCli(monkeypatch, *scripts, **changes)
