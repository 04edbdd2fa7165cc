"""`phi3v` run in this process, with `phi3v.load` in place of a model's giving an engine on a fake backend."""

from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_backend import FakeBackend, Script

import phi3v
from phi3v.cli.main import main


class FakeCli:
    """Runs commands. `loads` holds the arguments of every load, `backend` what the last one gave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: Script | str, **changes: Any) -> None:
        self.backend = FakeBackend(*scripts, **changes)
        self.loads: list[tuple[Any, ...]] = []
        self.load_error: Exception | None = None
        monkeypatch.setattr(phi3v, "load", self._load)

    def run(self, *arguments: str, stdin: str | bytes = "") -> Result:
        """One command to its end. An exception that the command line does not catch fails the test."""
        result = CliRunner().invoke(main, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def _load(self, *arguments: Any) -> phi3v.Engine:
        self.loads.append(arguments)
        if self.load_error is not None:
            raise self.load_error
        return phi3v.Engine(self.backend)
