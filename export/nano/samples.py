"""A sample: pictures, and questions with answers about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .canvas import Picture
from .vocabulary import Copied

GENERAL = ("What is this?", "What is in this image?", "What does this image show?", "Describe this image.")
"""Questions that any picture answers in its own way."""


VERDICT = "verdict"
"""The job of which the verdict is learned, and nothing before it."""

LEARNED, GIVEN, SPELLED = "learned", "given", "spelled"
"""How an answer's opening is taught: from the question; not at all; as if there were characters alone, no phrases."""


def question(random: Random, wordings: Sequence[str]) -> str:
    """One of the wordings, and a general question at times."""
    return random.choice(wordings if random.random() < 0.8 else GENERAL)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question; `job` names what it asks for, in reports.

    `opening` is how the answer's first part is taught; `fields` is the `--schema` that the answer keeps to, and
    `choices` are what it is one of, if any.
    """

    job: str
    question: str
    answer: tuple[str | Copied, ...]
    opening: str = LEARNED
    fields: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The answer as a reader sees it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.answer)


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures in the order they are given, and one or more questions, each on its own."""

    pictures: tuple[Picture, ...]
    turns: Sequence[Turn]


Make = Callable[[Random, bool], Sample]
"""(randomness, of words never trained on?) -> a sample."""
