"""Finds what somebody may have meant by a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for the known word nearest to `word`; "" where none is near."""
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), spellings, n=1, cutoff=0.6)
    return f"; did you mean {spellings[near[0]]}?" if near else ""
