"""Book covers: a title and an author on a portrait picture."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ...hd import CROP
from .canvas import Canvas, Colour, Picture, any_size, ground, ink
from .fonts import FACES, Font
from .formats import Member, choice, structured
from .layout import SMALLEST_TEXT, SMALLEST_TRAINED, block, wrap
from .samples import Sample, Turn, question
from .strips import BOOK, book_answer
from .vocabulary import Copied
from .words import author, title

TITLE_QUESTIONS = (
    "What is the title?",
    "What is the title of this book?",
    "What is the title of the book?",
    "What is this book called?",
)
AUTHOR_QUESTIONS = ("Who is the author?", "Who is the author of this book?", "Who wrote this book?", "Who wrote it?")


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """A drawn cover and its two texts, with their places."""

    picture: Picture
    title: Copied
    author: Copied


def draw_cover(name: str, writer: str, style: int, smallest: float = SMALLEST_TEXT, zoom: int = 1) -> Cover:
    """A cover with this title and author in letters of at least `smallest` pixels; `style` seeds everything else.

    With a `zoom` of 2 it is seen in 2 x 2 crops, and has smaller print: what needs no larger one is not drawn larger.
    """
    taste = Random(style)
    below = ground(taste)
    face = taste.choice(FACES)
    small = Font(taste.choice((face, *FACES)), taste.uniform(smallest, 28 / zoom**0.5))
    canvas = Canvas(any_size(taste, round(CROP * taste.uniform(0.66, 0.94)), CROP, zoom), below, zoom)
    middle, width = CROP / 2, canvas.width
    _decorate(taste, canvas, below)
    fill = ink(taste, below)
    lines, font = _fitted(name, Font(face, taste.uniform(26, 46) / zoom**0.5), width - 12, smallest)
    baseline = taste.uniform(20, 60) + font.size
    title_places = block(canvas, middle, baseline, lines, font, fill)
    writer_lines = wrap(writer, small, width - 8)
    last = taste.uniform(max(250, 232 + 1.15 * small.size * len(writer_lines)), 322)
    above = 1.15 * small.size * (len(writer_lines) - 1)
    author_places = block(canvas, middle, last - above, writer_lines, small, fill)
    return Cover(canvas.finish(), Copied(name, tuple(title_places)), Copied(writer, tuple(author_places)))


def cover_sample(random: Random, held_out: bool = False) -> Sample:
    """One cover with the three questions about it, one title in four in capitals."""
    return _asked(
        random, draw_cover(title(random, held_out, capitals=0.25), author(random, held_out), random.getrandbits(40))
    )


def book_format_sample(random: Random, held_out: bool = False) -> Sample:
    """One cover, and the JSON line that tells of it."""
    cover = draw_cover(title(random, held_out, capitals=0.25), author(random, held_out), random.getrandbits(40))
    return Sample((cover.picture,), [_in_format(random, cover)])


def wider_cover(random: Random, held_out: bool = False) -> Sample:
    """One to train on: with smaller print, misspelt names and more titles in capitals.

    With a quarter in capitals, as covers are scored, titles in capitals were wrong three times as often as others.
    """
    name, writer = title(random, held_out, capitals=0.5, misspelling=0.3), author(random, held_out, misspelling=0.3)
    return _asked(random, draw_cover(name, writer, random.getrandbits(40), SMALLEST_TRAINED))


def sharp_cover(random: Random, held_out: bool = False) -> Sample:
    """One whose print can be read in 2 x 2 crops and not in one: to train on, in the words of `wider_cover`."""
    name, writer = title(random, held_out, capitals=0.5, misspelling=0.3), author(random, held_out, misspelling=0.3)
    return _asked(random, draw_cover(name, writer, random.getrandbits(40), SMALLEST_TRAINED / 2, zoom=2))


def sharp_cover_sample(random: Random, held_out: bool = False) -> Sample:
    """The same to score, in the words and print of `cover_sample`, at twice its size."""
    name, writer = title(random, held_out, capitals=0.25), author(random, held_out)
    return _asked(random, draw_cover(name, writer, random.getrandbits(40), SMALLEST_TEXT / 2, zoom=2))


def _asked(random: Random, cover: Cover) -> Sample:
    turns = [
        Turn("book", question(random, BOOK), book_answer(cover.title, cover.author)),
        Turn("book title", random.choice(TITLE_QUESTIONS), ('The title is "', cover.title, '".')),
        Turn("book author", random.choice(AUTHOR_QUESTIONS), ("The author is ", cover.author, ".")),
    ]
    if random.random() < 0.5:
        chosen = choice(random, "book choice", TITLE_QUESTIONS, cover.title, [title(random) for _ in range(3)])
    else:
        chosen = choice(random, "book choice", AUTHOR_QUESTIONS, cover.author, [author(random) for _ in range(3)])
    turns += [_in_format(random, cover), chosen]
    return Sample((cover.picture,), turns)


def _in_format(random: Random, cover: Cover) -> Turn:
    """Title, author or both as a JSON line; a year is never on a cover."""
    name: Member = ("title", cover.title, "")
    writer: Member = ("author", cover.author, "")
    writers: Member = ("authors", cover.author, "list[str]")
    year: Member = ("year", "null", "int?")
    both = (name, writer)
    choices = (both, both, (name,), (writer,), (writer, name), (*both, year), (name, writers, year))
    members: tuple[Member, ...] = random.choice(choices)
    questions = TITLE_QUESTIONS if members == (name,) else AUTHOR_QUESTIONS if members == (writer,) else BOOK
    return structured(random, "book format", questions, members)


def _fitted(text: str, font: Font, width: float, smallest: float) -> tuple[list[str], Font]:
    """Lines no wider than `width` and no taller than half a cover, in the largest font down to `smallest`."""
    while True:
        lines = wrap(text, font, width)
        if max(map(font.width, lines)) <= width and len(lines) * font.size * 1.15 < CROP / 2:
            return lines, font
        if font.size <= smallest:
            return lines, font
        font = Font(font.face, max(smallest, font.size * 0.93))


def _decorate(taste: Random, canvas: Canvas, below: Colour) -> None:
    """A band, a disc or a rule between title and author, at times."""
    left, right = canvas.left, canvas.left + canvas.width
    kind = taste.random()
    colour = ink(taste, below, contrast=30)
    if kind < 0.25:
        top = taste.uniform(205, 225)
        canvas.rectangle((left, top, right, top + taste.uniform(2, 14)), colour)
    elif kind < 0.4:
        canvas.ellipse((CROP / 2 - 18, 200, CROP / 2 + 18, 236), colour)
    elif kind < 0.5:
        canvas.line([(left + 20, 220), (right - 20, 220)], colour)
