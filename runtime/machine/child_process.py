"""What all child processes of ours have in common."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, by the same Python. -P: no phi3v of the current directory instead."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """An environment in which that Python finds this same phi3v, whatever directory it runs in."""
    places = [str(Path(place).absolute()) for place in sys.path if place]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, however that happens.

    Linux only: on other systems this process ends when it next reads from its parent. The parent is the thread that
    started it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
