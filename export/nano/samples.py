"""A sample: pictures, and questions with answers about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Picture
from .vocabulary import Copied


@dataclass(frozen=True, slots=True)
class Turn:
    """One question; `job` names what it asks for, in reports."""

    job: str
    question: str
    answer: tuple[str | Copied, ...]

    @property
    def text(self) -> str:
        """The answer as a reader sees it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.answer)


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures in the order they are given, and one or more questions, each on its own."""

    pictures: tuple[Picture, ...]
    turns: Sequence[Turn]
