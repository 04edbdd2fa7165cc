"""What is asked about a chart of any kind, and the true answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from .canvas import Picture, Place
from .chart_data import Data
from .formats import Member, choice, structured
from .samples import Sample, Turn, question
from .vocabulary import CHART_KINDS, Copied

INTRODUCE = (
    "Could you please introduce this stock to me?",
    "What does this chart show?",
    "Describe this chart.",
    "Explain this chart.",
)
_HIGHEST_BAR = ("Which bar is the highest?", "What is the highest bar?")
_HIGHEST_VALUE = ("What is the highest value?",)
HIGHEST = (*_HIGHEST_BAR, *_HIGHEST_VALUE)
LOWEST = ("Which bar is the lowest?", "What is the lowest bar?", "What is the lowest value?", "Which is the lowest?")
TITLE_QUESTIONS = ("What is the title?", "What is the title of this chart?", "What is this chart called?")
VALUE = ("What is the value of {}?", "What is the value of {}?", "How much is {}?", "Which value does {} have?", "{}?")
COUNT = {
    "bar": ("How many bars are there?", "How many bars?", "How many values are there?"),
    "line": ("How many points are there?", "How many points?", "How many values are there?"),
}


@dataclass(slots=True)
class Places:
    """Cells of the characters of a chart's texts, and where the title ends (pixels from the top)."""

    title: list[Place]
    below_title: float
    labels: list[list[Place]] = field(default_factory=list)
    values: list[list[Place]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A drawn chart, what it shows and where its texts stand; `kind` is what it is called: a bar or a line chart."""

    picture: Picture
    data: Data
    places: Places
    kind: str = "bar"

    @property
    def title(self) -> Copied:
        """The title as it stands in the picture."""
        return Copied(self.data.title, tuple(self.places.title))

    def label(self, index: int) -> Copied:
        """A label as it stands in the picture."""
        return Copied(self.data.labels[index], tuple(self.places.labels[index]))

    def value(self, index: int) -> Copied:
        """A value as it stands in the picture."""
        return Copied(self.data.values[index], tuple(self.places.values[index]))


def ask(random: Random, chart: Chart, job: str = "chart") -> Sample:
    """What the reference document asks about a chart first, then all that is asked of any."""
    asked = random.randrange(len(chart.data.labels))
    high = chart.data.highest
    highest = (chart.value(high), ", reached by ", chart.label(high), ".")
    introduction = (CHART_KINDS[chart.kind], chart.title, '". The highest value is ', *highest)
    turns = [
        Turn(job, question(random, INTRODUCE), introduction),
        Turn(f"{job} highest", random.choice(HIGHEST), ("The highest value is ", *highest)),
        Turn(f"{job} title", random.choice(TITLE_QUESTIONS), ('The title of the chart is "', chart.title, '".')),
        ask_value(random, chart, asked, f"{job} value"),
        ask_count(random, chart, f"{job} count"),
        *ask_lowest(random, chart, f"{job} lowest"),
        ask_in_format(random, chart, f"{job} format"),
        ask_choice(random, chart, f"{job} choice"),
    ]
    return Sample((chart.picture,), turns)


def ask_one_bar(random: Random, chart: Chart, job: str) -> Sample:
    """One question about a bar that is not the highest, or about how many there are: values mostly."""
    kind = random.random()
    lowest = ask_lowest(random, chart, job)
    if kind < 0.25 and lowest:
        turn = lowest[0]
    elif kind < 0.45:
        turn = ask_count(random, chart, job)
    else:
        turn = ask_value(random, chart, random.randrange(len(chart.data.labels)), job)
    return Sample((chart.picture,), [turn])


def ask_value(random: Random, chart: Chart, index: int, job: str) -> Turn:
    """The value of a bar that is named."""
    answer = ("The value of ", chart.label(index), " is ", chart.value(index), ".")
    return Turn(job, random.choice(VALUE).format(chart.data.labels[index]), answer)


def ask_lowest(random: Random, chart: Chart, job: str) -> Sequence[Turn]:
    """The lowest bar, where it is clearly that."""
    low = chart.data.lowest
    if low is None:
        return ()
    answer = ("The lowest value is ", chart.value(low), ", reached by ", chart.label(low), ".")
    return (Turn(job, random.choice(LOWEST), answer),)


def ask_count(random: Random, chart: Chart, job: str) -> Turn:
    """How many bars or points there are."""
    answer = ("There are ", str(len(chart.data.labels)), f" {chart.kind}s." if chart.kind == "bar" else " points.")
    return Turn(job, random.choice(COUNT[chart.kind]), answer)


def ask_choice(random: Random, chart: Chart, job: str) -> Turn:
    """The highest bar as one of the labels, or its value as one of the values."""
    high, data = chart.data.highest, chart.data
    if random.random() < 0.7:
        return choice(random, job, _HIGHEST_BAR, chart.label(high), data.labels)
    return choice(random, job, _HIGHEST_VALUE, chart.value(high), data.values)


def ask_in_format(random: Random, chart: Chart, job: str) -> Turn:
    """Title, highest bar and its value, or some of these, as a JSON line."""
    high = chart.data.highest
    title: Member = ("title", chart.title, "")
    label: Member = ("highest", chart.label(high), "")
    value: Member = ("value", chart.value(high), "float")
    whole = (title, label, value)
    members: Sequence[Member] = random.choice((whole, whole, (label, value), (title,), (label,), (value,)))
    questions = TITLE_QUESTIONS if members == (title,) else INTRODUCE if title in members else HIGHEST
    return structured(random, job, questions, members)
