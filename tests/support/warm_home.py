"""A person with a warm engine: the commands they type, and what runs because of them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import MAIN, PATIENCE_S, children, started

from phi3v.cli.warm.frames import pack

SHORT = ("--max-new-tokens", "12", "--num-crops", "1")
RANDOM = ("--temperature", "100", "--seed", "1")
"""Every token is as likely as any other: an answer of the demo model does not end by itself for thousands of them."""

ENDLESS = ("--max-new-tokens", "100000", *RANDOM)

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED"), reason="the system has no Unix sockets of Linux"
)


class Home:
    """A person with a model, a runtime folder and images."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.env = {"XDG_RUNTIME_DIR": str(root), "PHI3V_MODEL": str(model)}
        self.sockets = root / "phi3v"

    def run(
        self, *arguments: str, stdin: bytes = b"", code: str = MAIN, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-P", "-c", code, *arguments]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=os.environ | self.env | env,
            timeout=PATIENCE_S,
            cwd=self.root,
        )

    def popen(self, *arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        command = [sys.executable, "-P", "-c", MAIN, *arguments]
        env = os.environ | self.env
        return started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=self.root)

    def status(self) -> list[dict[str, Any]]:
        done = self.run("warm", "--status", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def path(self) -> Path:
        (found,) = self.sockets.glob("engine-*.sock")
        return found

    def server(self) -> int:
        return int(self.path().stem.removeprefix("engine-"))

    def worker(self) -> int:
        (child,) = children(self.server())
        return child

    @contextlib.contextmanager
    def warm(self, *arguments: str) -> Iterator["Home"]:
        done = self.run("warm", "--background", *arguments)
        assert done.returncode == 0, done.stderr
        try:
            yield self
        finally:
            self.run("warm", "--stop")
            shutil.rmtree(self.sockets, ignore_errors=True)


def until(true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def exists(pid: int) -> bool:
    """Whether a process runs that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def holds_memory(pid: int) -> bool:
    """Whether more than the name of a process is there: the kernel frees its memory before it closes its files."""
    try:
        return not Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def greet(home: Home, /, **changes: Any) -> socket.socket:
    connection = connected(home.path())
    if changes:
        connection.sendall(pack(changes))
    return connection


@contextlib.contextmanager
def patched(home: Home) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.env.items():
            patch.setenv(name, value)
        yield
