"""How the processes of a warm engine are started: by the same Python, so that they are the same phi3v."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours. -P: no phi3v of the current directory is imported instead."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Return an environment in which that Python finds this same phi3v, whatever directory it runs in."""
    places = [str(Path(place).absolute()) for place in sys.path if place]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
