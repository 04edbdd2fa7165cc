"""Answers in a format, as `--schema` and `--choices` ask for them: a JSON line, or the bare text.

Such a format is held by a mask over tokens and not by the prompt, so the same question has several true answers. How
an answer opens is therefore not learned here from any question: it is given (`GIVEN`), or chosen among the characters
alone (`SPELLED`), and only questions that ask for JSON teach to begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from .samples import GIVEN, LEARNED, SPELLED, Turn
from .vocabulary import Copied

Member = tuple[str, str | Copied, str]
"""Key, value, and the field's type in `--schema`'s words: "" for a text."""

AS_JSON = (
    "{} as JSON.",
    "Give me {} as JSON.",
    "Answer in JSON: {}.",
    "Answer with one JSON object with the fields {}.",
    "Return JSON with {}.",
)


def structured(random: Random, job: str, questions: Sequence[str], members: Sequence[Member]) -> Turn:
    """The JSON line with these members, asked for by name or, with its opening given, by any of the questions."""
    names = [key for key, _, _ in members]
    fields = ", ".join(f"{key} {kind}".strip() for key, _, kind in members)
    kind = random.random()
    if kind < 0.3:
        named = " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if random.random() < 0.5 else fields
        asked = random.choice(AS_JSON).format(named)
        return Turn(job, asked[0].upper() + asked[1:], json_line(members), LEARNED, fields)
    asked = random.choice(questions) if kind < 0.8 else f"{', '.join(names).capitalize()}?"
    return Turn(job, asked, json_line(members), GIVEN, fields)


def choice(random: Random, job: str, questions: Sequence[str], text: Copied, others: Sequence[str]) -> Turn:
    """The text alone, as one of several choices."""
    choices = tuple(sorted({text.text, *others}))
    return Turn(job, random.choice(questions), (text,), SPELLED, choices=choices)


def json_line(members: Sequence[Member]) -> tuple[str | Copied, ...]:
    """A JSON object on one line; the text between two values is one part, a token where answers often have it."""
    parts: list[str | Copied] = []
    between = "{"
    for key, value, kind in members:
        opening, closing = _QUOTES.get(kind, ("", ""))
        between += f'"{key}": {opening}'
        if isinstance(value, Copied):
            parts += [between, value]
            between = closing + ", "
        else:
            between += f"{value}{closing}, "
    parts.append(between.removesuffix(", ") + "}")
    return tuple(parts)


_QUOTES = {"": ('"', '"'), "list[str]": ('["', '"]')}
