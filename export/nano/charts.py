"""Bar charts: a title on top, upright or lying bars with a label and a printed value each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ...hd import CROP
from .canvas import BAR, COLOURS, WHITE, Canvas, Colour, Place, any_size, ground, luminance
from .fonts import FACES, Font
from .samples import Sample, Turn
from .vocabulary import Copied
from .words import plain_word, words

INTRODUCE = (
    "Could you please introduce this stock to me?",
    "What does this chart show?",
    "Describe this chart.",
    "Introduce this chart.",
)
HIGHEST = ("Which bar is the highest?", "What is the highest value?")
LOWEST = ("Which bar is the lowest?", "What is the lowest value?")
SMALLEST_TEXT = 18
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
    def order(self) -> list[int]:
        """Indices from the lowest to the highest bar."""
        return sorted(range(len(self.values)), key=lambda index: float(self.values[index]))


@dataclass(slots=True)
class _Places:
    title: list[Place]
    labels: list[list[Place]]
    values: list[list[Place]]


def chart_data(random: Random, upright: bool, held_out: bool = False) -> Data:
    """A title, labels and distinct values; labels of upright charts are short."""
    count = random.randint(3, 5 if upright else 8)
    labels = _labels(random, count, upright, held_out)
    while len(set(values := _values(random, len(labels)))) < len(labels):
        pass
    return Data(_title(random, held_out), labels, values)


def chart_sample(random: Random, held_out: bool = False) -> Sample:
    """One chart with questions about it."""
    upright = random.random() < 0.5
    data = chart_data(random, upright, held_out)
    ground_colour = WHITE if random.random() < 0.6 else ground(random)
    height = random.choice((CROP, CROP, 280, 252)) if len(data.labels) < 7 else CROP
    canvas = Canvas(any_size(random, CROP, height), ground_colour)
    places = (_upright if upright else _lying)(random, canvas, data, ground_colour)
    title = Copied(data.title, tuple(places.title))
    labels = [Copied(t, tuple(p)) for t, p in zip(data.labels, places.labels, strict=True)]
    values = [Copied(t, tuple(p)) for t, p in zip(data.values, places.values, strict=True)]
    low, high = data.order[0], data.order[-1]
    asked = random.randrange(len(labels))
    with_value = " with a value of "
    turns = [
        Turn(
            "chart",
            random.choice(INTRODUCE),
            (
                'This bar chart is titled "',
                title,
                '". The highest bar is ',
                labels[high],
                with_value,
                values[high],
                ".",
            ),
        ),
        Turn(
            "chart highest",
            random.choice(HIGHEST),
            ("The highest bar is ", labels[high], with_value, values[high], "."),
        ),
        Turn("chart lowest", random.choice(LOWEST), ("The lowest bar is ", labels[low], with_value, values[low], ".")),
        Turn(
            "chart value",
            f"What is the value of {data.labels[asked]}?",
            ("The value of ", labels[asked], " is ", values[asked], "."),
        ),
    ]
    return Sample((canvas.finish(),), turns)


def _upright(random: Random, canvas: Canvas, data: Data, below: Colour) -> _Places:
    """Bars that stand, values above them, labels below."""
    dark = _text_colour(below)
    face, size = random.choice(FACES), random.uniform(SMALLEST_TEXT, 20)
    font = Font(face, size)
    title_places, top = _heading(random, canvas, data.title, face, dark)
    bottom = canvas.top + canvas.height - 1.6 * size
    left, right = canvas.left + 6, canvas.left + canvas.width - 6
    canvas.line([(left, bottom), (right, bottom)], dark)
    slot = (right - left) / len(data.labels)
    thick = slot * random.uniform(0.5, 0.75)
    room = bottom - top - 1.5 * size
    largest = max(map(float, data.values))
    places = _Places(title_places, [], [])
    paint = _paint(random, len(data.labels), below)
    for index, (label, value) in enumerate(zip(data.labels, data.values, strict=True)):
        middle = left + slot * (index + 0.5)
        height = max(2.0, room * float(value) / largest)
        box = (middle - thick / 2, bottom - height, middle + thick / 2, bottom)
        canvas.rectangle(box, COLOURS[paint[index]])
        canvas.mark(box, BAR, paint[index])
        places.values.append(canvas.centred(middle, bottom - height - 4, value, font, dark))
        places.labels.append(canvas.centred(middle, bottom + 1.2 * size, label, font, dark))
    return places


def _lying(random: Random, canvas: Canvas, data: Data, below: Colour) -> _Places:
    """Bars that lie, labels on their left, values at their ends."""
    dark = _text_colour(below)
    face, size = random.choice(FACES), random.uniform(SMALLEST_TEXT, 20)
    font = Font(face, size)
    title_places, top = _heading(random, canvas, data.title, face, dark)
    bottom = canvas.top + canvas.height - 6
    start = canvas.left + 10 + max(map(font.width, data.labels))
    canvas.line([(start, top), (start, bottom)], dark)
    slot = (bottom - top) / len(data.labels)
    thick = slot * random.uniform(0.5, 0.75)
    room = canvas.left + canvas.width - start - 10 - max(map(font.width, data.values))
    largest = max(map(float, data.values))
    places = _Places(title_places, [], [])
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
    return places


def _heading(random: Random, canvas: Canvas, title: str, face: str, dark: Colour) -> tuple[list[Place], float]:
    """The title in one line; where it ends below."""
    font = Font(face, random.uniform(20, 26))
    while font.width(title) > canvas.width - 10 and font.size > SMALLEST_TEXT:
        font = Font(face, max(SMALLEST_TEXT, font.size * 0.95))
    baseline = canvas.top + random.uniform(1.0, 1.3) * font.size
    return canvas.centred(CROP / 2, baseline, title, font, dark), baseline + 0.5 * font.size


def _title(random: Random, held_out: bool) -> str:
    """Short enough for one line of the smallest text."""
    while True:
        subject = plain_word(random, True).capitalize() if held_out else random.choice(words("subjects"))
        if not held_out and random.random() < 0.15:
            subject = random.choice(words("english")).capitalize()
        maker = random.choice(words("makers"))
        year = random.randint(1995, 2030)
        title = random.choice((subject, f"{subject} {year}", f"{maker} {subject}", f"{maker} {subject} {year}"))
        if Font(FACES[1], SMALLEST_TEXT).width(title) <= CROP - 12:
            return title


def _labels(random: Random, count: int, upright: bool, held_out: bool) -> tuple[str, ...]:
    kind = random.random()
    if kind < 0.35:
        first = random.randint(1995, 2030 - count)
        start = "" if upright or random.random() < 0.5 else "FY"
        return tuple(f"{start}{first + n}" for n in range(count))
    if kind < 0.7:
        series = random.choice([s for s in _SERIES if len(s) >= min(count, 4)])
        if upright:
            series = tuple(label[:4] for label in series) if max(map(len, series)) > 4 else series
        count = min(count, len(series))
        first = random.randint(0, len(series) - count)
        return series[first : first + count]
    longest = 4 if upright else 8
    labels: dict[str, None] = {}
    while len(labels) < count:
        word = plain_word(random, held_out).capitalize()
        if len(word) <= longest:
            labels[word] = None
    return tuple(labels)


def _values(random: Random, count: int) -> tuple[str, ...]:
    """Printed values: whole numbers of one size, or with one decimal."""
    high = random.choice((10, 100, 100, 1000))
    if random.random() < 0.2:
        return tuple(f"{random.uniform(high / 20, high / 4):.1f}" for _ in range(count))
    rising = random.random() < 0.3
    values = [random.randint(max(1, high // 12), high - 1) for _ in range(count)]
    return tuple(map(str, sorted(values) if rising else values))


def _paint(random: Random, count: int, below: Colour) -> Sequence[str]:
    """One colour for all bars, or one each, that stands out."""
    fit = [name for name, colour in COLOURS.items() if abs(luminance(colour) - luminance(below)) > 35]
    one = random.choice(fit)
    return [one] * count if random.random() < 0.6 else [random.choice(fit) for _ in range(count)]


def _text_colour(below: Colour) -> Colour:
    return (20, 20, 20) if luminance(below) > 128 else (245, 245, 245)
