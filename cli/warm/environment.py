"""The environment of the processes started here."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def child_environment() -> dict[str, str]:
    """For a Python of ours that must find this same phi3v, in whatever directory it runs."""
    places = [str(Path(place).absolute()) for place in sys.path if place]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
