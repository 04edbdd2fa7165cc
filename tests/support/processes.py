"""The command line as a process, and processes that do not outlive their tests."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 300.0
"""Seconds to wait for a process: long enough on a machine that is busy with other work; only a hang exceeds it."""

PHI3V = [sys.executable, "-P", "-m", "phi3v"]
"""The command line. -P: not the phi3v of the current directory."""

MAIN = "from phi3v.cli.main import main; main()"
"""The same as code for `python -c`, where a test changes something before."""


def children(process: int) -> list[int]:
    """The child processes of whichever of its threads, on Linux."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is killed at the end of the block: a failed assertion must not wait for it."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
