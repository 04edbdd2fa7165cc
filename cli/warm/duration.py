"""Durations on the command line: 90, 90s, 10m, 2h, forever."""

from __future__ import annotations

import math
import re

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Seconds, infinite for `forever`. Raises BadParameter; serves as the type of an option."""
    if text in ("forever", "inf"):
        return math.inf
    found = re.fullmatch(r"(\d{1,9}(?:\.\d*)?)([smh]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration; allowed: 90 or 90s, 10m, 2h, forever")
    return float(found[1]) * _SECONDS[found[2]]


def spoken(seconds: float) -> str:
    """A duration as people write it."""
    if seconds == math.inf:
        return "forever"
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit if unit == 'h' else 'min'}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
