"""nano's tokens: single characters, and whole phrases of its answers; answers as ids that decode to the right text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ...hd import HdPlan
from ...prompt import PromptLayout
from ...tokenizer import Tokenizer
from ..tokenizer import SMALLEST_VOCABULARY, write_tokenizer
from .canvas import COLOURS, SHAPES, Place

NUMBERS = ("one", "two", "three", "four")
VERDICTS = {
    "number": ". The number of shapes is different.",
    "shape": ". The shape is different.",
    "color": ". The color is different.",
    "none": ". There is no difference.",
}
"""The phrases that name what differs, by what does."""
FIRST, SECOND = "The first image shows", ". The second image shows"
THINGS = tuple(f" {word}" for word in (*NUMBERS, *COLOURS, *SHAPES))
"""What is said of a scene, a token each."""
CHART_KINDS = {"bar": 'This bar chart is titled "', "line": 'This line chart is titled "'}
"""How the introduction of a chart begins, by its kind."""
PHRASES = (
    'The title of the book is "',
    '" and the author is ',
    "The author is ",
    CHART_KINDS["bar"],
    '". The highest value is ',
    "The highest value is ",
    ", reached by ",
    "The value of ",
    'The title of the chart is "',
    "The image shows",
    ' and the word "',
    FIRST,
    SECOND,
    *VERDICTS.values(),
    'The text reads "',
    "I don't know this kind of picture.",
    'The title is "',
    *THINGS,
    CHART_KINDS["line"],
    "The lowest value is ",
    "There are ",
    " bars.",
    " points.",
    '{"title": "',
    '{"author": "',
    '{"highest": "',
    '{"value": ',
    '", "author": "',
    '", "title": "',
    '", "highest": "',
    '", "value": ',
    '", "year": null}',
    '", "authors": ["',
    '"], "year": null}',
    '"}',
)
"""New ones go to the end, so that weights trained before keep their tokens; `LIKE` says what they begin as."""
LIKE = {
    CHART_KINDS["line"]: CHART_KINDS["bar"],
    "The lowest value is ": "The highest value is ",
    '{"title": "': 'The title of the book is "',
    '{"author": "': "The author is ",
    '{"highest": "': ", reached by ",
    '{"value": ': "The highest value is ",
    '", "author": "': '" and the author is ',
    '", "title": "': 'The title is "',
    '", "highest": "': ", reached by ",
    '", "value": ': '". The highest value is ',
    '", "authors": ["': '" and the author is ',
}
"""An older phrase that does the same work: what a new one is trained on from."""
VOCABULARY = SMALLEST_VOCABULARY + len(PHRASES)


def phrase_ids(phrases: Iterable[str]) -> tuple[int, ...]:
    """Ids of phrases that are a token each."""
    return tuple(SMALLEST_VOCABULARY + PHRASES.index(phrase) for phrase in phrases)


PHRASE_IDS = phrase_ids(PHRASES)
VERDICT_IDS = phrase_ids(VERDICTS.values())
IMAGE_TOKENS = {zoom: HdPlan((0, 0), zoom, zoom).image_tokens for zoom in (1, 2)}
"""Slots a picture takes, by the number of crops along its side: 313 and 757."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Ids of an answer, its end included, and the cell of the first picture each was read from, or None."""

    ids: tuple[int, ...]
    sources: tuple[Place | None, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """Text that stands in the first picture; `places` are the cells of its characters."""

    text: str
    places: tuple[Place, ...] = ()


@dataclass(slots=True)
class Vocabulary:
    """The tokenizer and the ids of phrases and characters."""

    tokenizer: Tokenizer
    end: int = field(init=False)
    _pieces: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.end = self.tokenizer.control_id("<|end|>")
        names = [*PHRASES, *(chr(code) for code in range(33, 127))]
        self._pieces = {name: self.tokenizer.control_id(name) for name in names}
        self._pieces[" "] = self.tokenizer.control_id("▁")

    @classmethod
    def read(cls, folder: Path) -> Vocabulary:
        """The vocabulary of a checkpoint or model folder."""
        return cls(Tokenizer(folder / "tokenizer.json"))

    def answer(self, parts: Sequence[str | Copied]) -> Answer:
        """Ids of an answer given in parts: text of our own, and text copied from a picture."""
        ids: list[int] = []
        sources: list[Place | None] = []
        for part in parts:
            text = part.text if isinstance(part, Copied) else part
            pieces = [text] if text in self._pieces else list(text)
            ids += [self._pieces[piece] for piece in pieces]
            if isinstance(part, Copied) and part.places:
                sources += part.places
            else:
                sources += [None] * len(pieces)
        return Answer((*ids, self.end), (*sources, None))

    def prompt(self, question: str, pictures: int, zoom: int = 1) -> list[int]:
        """Ids of the prompt as the runtime lays it out; slots are negative."""
        return PromptLayout.of(question, pictures).input_ids(self.tokenizer, [IMAGE_TOKENS[zoom]] * pictures)

    def text(self, ids: Sequence[int]) -> str:
        """What the runtime shows for these ids."""
        stream = self.tokenizer.text_stream()
        return "".join(stream.push(token) for token in ids) + stream.flush()


def write_vocabulary(folder: Path, size: int = VOCABULARY) -> None:
    """tokenizer.json and its companions; of weights that have fewer tokens, as many as they have."""
    write_tokenizer(folder, size, PHRASES[: size - SMALLEST_VOCABULARY])


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of training, made afresh."""
    with TemporaryDirectory() as folder:
        write_vocabulary(Path(folder))
        return Vocabulary.read(Path(folder))
