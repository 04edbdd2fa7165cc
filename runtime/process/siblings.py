"""Siblings: rows of a job that ask about the same images. One after the other, they are answered from one prefix."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def order_siblings(keys: Sequence[Hashable]) -> list[int]:
    """The numbers of the keys, those of equal ones side by side, in order of the first."""
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    return [number for group in groups.values() for number in group]
