"""Bar charts: a title on top, lying bars with a label and a printed value each, one of them clearly the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ...hd import CROP
from .canvas import BAR, COLOURS, WHITE, Canvas, Colour, Picture, Place, any_size, ground, luminance
from .fonts import FACES, Font
from .layout import SMALLEST_TEXT
from .samples import Sample, Turn, question
from .vocabulary import Copied
from .words import misspelt, plain_word, words

INTRODUCE = (
    "Could you please introduce this stock to me?",
    "What does this chart show?",
    "Describe this chart.",
    "Explain this chart.",
)
HIGHEST = ("Which bar is the highest?", "What is the highest bar?", "What is the highest value?")
TITLE_QUESTIONS = ("What is the title?", "What is the title of this chart?", "What is this chart called?")
_CLEARLY = 0.88
"""The second longest bar is at most this share of the longest: what cannot be seen at a glance is not asked."""

_SERIES: tuple[tuple[str, ...], ...] = (
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug"),
    ("Q1", "Q2", "Q3", "Q4"),
    ("North", "South", "East", "West"),
    ("A", "B", "C", "D", "E", "F"),
)


@dataclass(frozen=True, slots=True)
class Data:
    """What a chart shows; values as they are printed."""

    title: str
    labels: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def highest(self) -> int:
        """Index of the longest bar."""
        return max(range(len(self.values)), key=lambda index: float(self.values[index]))


@dataclass(slots=True)
class Places:
    """Cells of the characters of a chart's texts, and where the title ends (pixels from the top)."""

    title: list[Place]
    below_title: float
    labels: list[list[Place]] = field(default_factory=list)
    values: list[list[Place]] = field(default_factory=list)


def chart_data(random: Random, held_out: bool = False, longest_label: int = 8, misspelling: float = 0.0) -> Data:
    """A title, labels and values, the highest by a clear distance; `misspelling`: how likely a word is misspelt."""
    labels = _labels(random, random.randint(3, 8 if longest_label > 4 else 5), longest_label, held_out, misspelling)
    draw = random.choice((_whole, _whole, _whole, _decimals, _growing))
    while True:
        values = draw(random, len(labels))
        second, first = sorted(map(float, values))[-2:]
        if second <= _CLEARLY * first:
            return Data(_title(random, held_out, misspelling), labels, tuple(values))


def chart_sample(random: Random, held_out: bool = False) -> Sample:
    """One chart with questions about it."""
    return _asked(random, chart_data(random, held_out))


def wider_chart(random: Random, held_out: bool = False) -> Sample:
    """One to train on, with misspelt words."""
    return _asked(random, chart_data(random, held_out, misspelling=0.25))


def _asked(random: Random, data: Data) -> Sample:
    height = random.choice((CROP, CROP, 290)) if len(data.labels) < 7 else CROP
    picture, places = draw_chart(random, data, height)
    title = Copied(data.title, tuple(places.title))
    labels = [Copied(t, tuple(p)) for t, p in zip(data.labels, places.labels, strict=True)]
    values = [Copied(t, tuple(p)) for t, p in zip(data.values, places.values, strict=True)]
    high, asked = data.highest, random.randrange(len(labels))
    highest = (values[high], ", reached by ", labels[high], ".")
    introduction = ('This bar chart is titled "', title, '". The highest value is ', *highest)
    value = ("The value of ", labels[asked], " is ", values[asked], ".")
    turns = [
        Turn("chart", question(random, INTRODUCE), introduction),
        Turn("chart highest", random.choice(HIGHEST), ("The highest value is ", *highest)),
        Turn("chart title", random.choice(TITLE_QUESTIONS), ('The title of the chart is "', title, '".')),
        Turn("chart value", f"What is the value of {data.labels[asked]}?", value),
    ]
    return Sample((picture,), turns)


def standing_chart(random: Random) -> Picture:
    """Bars that stand: not of nano's world yet."""
    below = _below(random)
    canvas = Canvas(any_size(random, CROP, random.choice((CROP, 280, 252))), below)
    _standing(random, canvas, chart_data(random, longest_label=4), below)
    return canvas.finish()


def draw_chart(random: Random, data: Data, height: int = CROP) -> tuple[Picture, Places]:
    """Bars that lie, labels on their left, values at their ends."""
    below = _below(random)
    canvas = Canvas(any_size(random, CROP, height), below)
    dark, face = _text_colour(below), random.choice(FACES)
    size = min(random.uniform(SMALLEST_TEXT, 25), (height - 40) / len(data.labels) * 0.75)
    size = max(SMALLEST_TEXT, min(size, 115 / max(Font(face, 1.0).width(label) for label in data.labels)))
    font = Font(face, size)
    places = Places(*_heading(random, canvas, data.title, face, dark))
    top, bottom = places.below_title, canvas.top + canvas.height - 6
    start = canvas.left + 10 + max(map(font.width, data.labels))
    canvas.line([(start, top), (start, bottom)], dark)
    slot = (bottom - top) / len(data.labels)
    thick = slot * random.uniform(0.5, 0.75)
    room = canvas.left + canvas.width - start - 10 - max(map(font.width, data.values))
    largest = max(map(float, data.values))
    paint = _paint(random, len(data.labels), below)
    for index, (label, value) in enumerate(zip(data.labels, data.values, strict=True)):
        middle = top + slot * (index + 0.5)
        length = max(2.0, room * float(value) / largest)
        box = (start, middle - thick / 2, start + length, middle + thick / 2)
        canvas.rectangle(box, COLOURS[paint[index]])
        canvas.mark(box, BAR, paint[index])
        baseline = middle + 0.36 * size
        places.values.append(canvas.text(start + length + 5, baseline, value, font, dark))
        places.labels.append(canvas.text(start - 5 - font.width(label), baseline, label, font, dark))
    return canvas.finish(), places


def _standing(random: Random, canvas: Canvas, data: Data, below: Colour) -> None:
    dark = _text_colour(below)
    font = Font(random.choice(FACES), random.uniform(16, 20))
    _, top = _heading(random, canvas, data.title, font.face, dark)
    bottom = canvas.top + canvas.height - 1.6 * font.size
    left, right = canvas.left + 6, canvas.left + canvas.width - 6
    canvas.line([(left, bottom), (right, bottom)], dark)
    slot = (right - left) / len(data.labels)
    thick = slot * random.uniform(0.5, 0.75)
    room = bottom - top - 1.5 * font.size
    largest = max(map(float, data.values))
    paint = _paint(random, len(data.labels), below)
    for index, (label, value) in enumerate(zip(data.labels, data.values, strict=True)):
        middle, height = left + slot * (index + 0.5), max(2.0, room * float(value) / largest)
        canvas.rectangle((middle - thick / 2, bottom - height, middle + thick / 2, bottom), COLOURS[paint[index]])
        canvas.centred(middle, bottom - height - 4, value, font, dark)
        canvas.centred(middle, bottom + 1.2 * font.size, label, font, dark)


def _heading(random: Random, canvas: Canvas, title: str, face: str, dark: Colour) -> tuple[list[Place], float]:
    """The title in one line; where it ends below."""
    font = Font(face, random.uniform(20, 26))
    while font.width(title) > canvas.width - 10 and font.size > SMALLEST_TEXT:
        font = Font(face, max(SMALLEST_TEXT, font.size * 0.95))
    baseline = canvas.top + random.uniform(1.0, 1.3) * font.size
    return canvas.centred(CROP / 2, baseline, title, font, dark), baseline + 0.5 * font.size


def _title(random: Random, held_out: bool, misspelling: float) -> str:
    """Short enough for one line of the smallest text."""
    while True:
        subject = plain_word(random, True).capitalize() if held_out else random.choice(words("subjects"))
        if not held_out and random.random() < 0.15:
            subject = random.choice(words("english")).capitalize()
        subject = misspelt(random, subject, misspelling)
        maker = random.choice(words("makers"))
        year = random.randint(1995, 2030)
        title = random.choice((subject, f"{subject} {year}", f"{maker} {subject}", f"{maker} {subject} {year}"))
        if Font(FACES[1], SMALLEST_TEXT).width(title) <= CROP - 12:
            return title


def _labels(random: Random, count: int, longest: int, held_out: bool, misspelling: float) -> tuple[str, ...]:
    """Years, a series or words, none longer than `longest`."""
    kind = random.random()
    if kind < 0.35:
        first = random.randint(1995, 2030 - count)
        start = "FY" if longest > 4 and random.random() < 0.5 else ""
        return tuple(f"{start}{first + n}" for n in range(count))
    if kind < 0.7:
        series = random.choice([s for s in _SERIES if len(s) >= min(count, 4)])
        count = min(count, len(series))
        first = random.randint(0, len(series) - count)
        return tuple(label[:longest] for label in series[first : first + count])
    labels: dict[str, None] = {}
    while len(labels) < count:
        word = plain_word(random, held_out, misspelling).capitalize()
        if len(word) <= longest:
            labels[word] = None
    return tuple(labels)


def _whole(random: Random, count: int) -> list[str]:
    high = random.choice((10, 100, 100, 1000))
    values = [random.randint(max(1, high // 12), high - 1) for _ in range(count)]
    return [str(value) for value in (sorted(values) if random.random() < 0.2 else values)]


def _decimals(random: Random, count: int) -> list[str]:
    high = random.choice((10, 100))
    return [f"{random.uniform(high / 20, high):.1f}" for _ in range(count)]


def _growing(random: Random, count: int) -> list[str]:
    """Each a good deal more than the one before it; shuffled at times."""
    value, values = random.uniform(0.5, 9.0), []
    for _ in range(count):
        values.append(f"{value:.1f}" if value < 100 else f"{value:.0f}")
        value *= random.uniform(1.0, 2.2)
    return values if random.random() < 0.5 else random.sample(values, count)


def _paint(random: Random, count: int, below: Colour) -> Sequence[str]:
    """One colour for all bars, or one each, that stands out."""
    fit = [name for name, colour in COLOURS.items() if abs(luminance(colour) - luminance(below)) > 35]
    one = random.choice(fit)
    return [one] * count if random.random() < 0.6 else [random.choice(fit) for _ in range(count)]


def _below(random: Random) -> Colour:
    return WHITE if random.random() < 0.6 else ground(random)


def _text_colour(below: Colour) -> Colour:
    return (20, 20, 20) if luminance(below) > 128 else (245, 245, 245)
