"""A row of a job: one question about some images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phi3v.process.siblings import order_siblings


@dataclass(frozen=True, slots=True)
class Item:
    """One question. Its `id` is unique within a job; `images` are paths or URLs.

    `columns` are the other columns of the table that it comes from; `has_own_id`: the table names the id.
    """

    id: str
    images: tuple[str, ...]
    question: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    has_own_id: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for questions about the same images. A question without images has no equal."""
        return self.images or (self.id,)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` parts of a job, counted from 1. Questions about the same images are in the same part."""

    number: int
    of: int

    def holds(self, item: Item) -> bool:
        """Whether an item is in this part. That does not depend on the other items."""
        return _hash("\0".join(item.key)) % self.of == self.number - 1


def sample_items(items: Sequence[Item], count: int) -> list[Item]:
    """As many items, drawn by the hashes of their ids: the same at every call, and a larger sample holds a smaller."""
    drawn = {item.id for item in sorted(items, key=lambda item: _hash(item.id))[:count]}
    return [item for item in items if item.id in drawn]


def gather_siblings(items: Sequence[Item]) -> list[Item]:
    """The items with questions about the same images side by side."""
    return [items[number] for number in order_siblings([item.key for item in items])]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
