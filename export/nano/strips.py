"""Strips: a few rows of a page with little text in them, short enough to learn copying on hundreds of thousands."""

from __future__ import annotations

from random import Random

from ...hd import CROP
from .canvas import WHITE, Canvas, ground, ink
from .fonts import FACES, Font
from .layout import SMALLEST_TRAINED, block, wrap
from .samples import Sample, Turn
from .vocabulary import Copied
from .words import author, plain_word, title

CELL = 28
READ = ("Read the text.", "Read it.", "What does it say?", "What is written here?")
BOOK = (
    "Help me get the title and author information of this book?",
    "What are the title and the author of this book?",
    "Who wrote this book and what is it called?",
    "What is the title and who is the author?",
    "Read the title and the author.",
    "What book is this?",
)


def book_answer(name: Copied, writer: Copied) -> tuple[str | Copied, ...]:
    """The reference document's own wording."""
    return ('The title of the book is "', name, '" and the author is ', writer, ".")


def line_strip(random: Random, row: int, question: str, held_out: bool = False, misspelling: float = 0.0) -> Sample:
    """One line of text in the two cell rows from `row` on; `misspelling`: how likely its words are misspelt."""
    below = ground(random)
    canvas = Canvas(ground=below)
    text, font = _line(random, held_out, misspelling)
    width = font.width(text)
    left = random.uniform(3, max(4, CROP - 3 - width))
    top, bottom = row * CELL, (row + 2) * CELL
    baseline = random.uniform(top + 0.85 * font.size, bottom - 0.25 * font.size)
    places = canvas.text(left, baseline, text, font, ink(random, below))
    turn = Turn("line", question, ('The text reads "', Copied(text, tuple(places)), '".'))
    return Sample((canvas.finish(),), (turn,))


def book_strip(random: Random, row: int, question: str, held_out: bool = False, misspelling: float = 0.0) -> Sample:
    """Title and author close together in the five cell rows from `row` on, on a cover's width."""
    below = ground(random)
    small, font = (Font(random.choice(FACES), random.uniform(SMALLEST_TRAINED, most)) for most in (26, 32))
    width = random.randint(210, 320)
    while small.width(writer := author(random, held_out, misspelling)) > width - 6:
        width, small = min(320, width + 20), Font(small.face, SMALLEST_TRAINED)
    canvas = Canvas(ground=WHITE)
    canvas.rectangle((CROP / 2 - width / 2, 0, CROP / 2 + width / 2, CROP), below)
    while True:
        name = title(random, held_out, capitals=0.5, misspelling=misspelling)
        lines = wrap(name, font, width - 8)
        if len(lines) <= 2 and max(map(font.width, lines)) <= width - 6:
            break
    fill = ink(random, below)
    height = 1.15 * font.size * len(lines) + 1.3 * small.size
    baseline = row * CELL + random.uniform(0.8, max(1, 5 * CELL - height)) + 0.8 * font.size
    places = block(canvas, CROP / 2, baseline, lines, font, fill)
    last = row * CELL + 5 * CELL - 0.3 * small.size
    under = min(last, baseline + 1.15 * font.size * (len(lines) - 1) + random.uniform(1.3, 2.5) * small.size)
    writer_places = canvas.centred(CROP / 2, under, writer, small, fill)
    answer = book_answer(Copied(name, tuple(places)), Copied(writer, tuple(writer_places)))
    return Sample((canvas.finish(),), (Turn("book", question, answer),))


def _line(random: Random, held_out: bool, misspelling: float) -> tuple[str, Font]:
    """A text and a font in which it fits one line."""
    while True:
        text = _text(random, held_out, misspelling)
        font = Font(random.choice(FACES), random.uniform(SMALLEST_TRAINED, 38))
        if font.width(text) <= CROP - 8:
            return text, font


def _text(random: Random, held_out: bool, misspelling: float) -> str:
    kind = random.random()
    if kind < 0.35:
        return title(random, held_out, capitals=0.5, misspelling=misspelling)
    if kind < 0.5:
        return author(random, held_out, misspelling)
    if kind < 0.62 and not held_out:
        return str(random.randrange(10 ** random.randint(1, 5)))
    text = " ".join(plain_word(random, held_out, misspelling) for _ in range(random.randint(1, 3)))
    return f"{text} {random.randint(1900, 2030)}" if random.random() < 0.15 else text
