"""What a chart shows: a title, labels and values, drawn at random so that every question about them has one answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ...hd import CROP
from .fonts import FACES, Font
from .layout import SMALLEST_TEXT
from .words import misspelt, plain_word, words

_CLEARLY = 0.88
"""The second longest bar is at most this share of the longest: what cannot be seen at a glance is not asked."""

_APART = 0.06
"""The second shortest bar is longer than the shortest by at least this share of the longest."""

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

    @property
    def lowest(self) -> int | None:
        """Index of the shortest bar, or None where the next one is nearly as short."""
        first, second = sorted(range(len(self.values)), key=lambda index: float(self.values[index]))[:2]
        apart = float(self.values[second]) - float(self.values[first])
        return first if apart >= _APART * float(self.values[self.highest]) else None


def chart_data(random: Random, held_out: bool = False, longest_label: int = 8, misspelling: float = 0.0) -> Data:
    """A title, labels and values, the highest by a clear distance; `misspelling`: how likely a word is misspelt."""
    labels = _labels(random, random.randint(3, 8 if longest_label > 4 else 5), longest_label, held_out, misspelling)
    draw = random.choice((_whole, _whole, _whole, _decimals, _growing))
    while True:
        values = draw(random, len(labels))
        second, first = sorted(map(float, values))[-2:]
        if second <= _CLEARLY * first:
            return Data(_title(random, held_out, misspelling), labels, tuple(values))


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
