"""The stages of training: what each draws, and which parts it moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from .batches import FULL, SHARP, Window
from .canvas import compressed
from .charts import chart_sample, wider_chart
from .columns import column_sample, line_sample, sharp_column, wider_column, wider_line
from .covers import cover_sample, sharp_cover, sharp_cover_sample, wider_cover
from .pairs import scene_pair, verdict_pair
from .plots import plot_sample, wider_plot
from .samples import Make, Sample
from .scenes import scene_sample
from .strangers import stranger_sample
from .strips import BOOK, READ, book_strip, line_strip

Draw = Callable[[Random, Random, bool], tuple[list[Sample], Window]]
"""(what decides the shape, what decides the content, held-out words?) -> samples of one shape, and their window.

Workers that train together share the first and have each their own second, so that none waits long for another.
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: a share `reading` of the steps is dense reading, the rest answers what `draw` draws.

    `moves_tower` is the share of those answering steps that train the vision tower too; the others cost half as much.
    """

    name: str
    moves_tower: float
    reading: float
    draw: Draw
    guide: float = 0.5
    """Weight of the attention guide."""
    probes: dict[str, Draw] = field(default_factory=dict)
    """What held-out accuracy is measured on, by name."""


def draw_lines(shape: Random, random: Random, held_out: bool, misspelling: float = 0.0) -> tuple[list[Sample], Window]:
    """Strips of one line."""
    first, question = shape.randrange(11), shape.choice(READ)
    samples = [line_strip(random, first, question, held_out, misspelling) for _ in range(48)]
    return samples, _copies(shape, first, 2)


def draw_books(shape: Random, random: Random, held_out: bool, misspelling: float = 0.0) -> tuple[list[Sample], Window]:
    """Strips of a title and an author."""
    first, question = shape.randrange(8), shape.choice(BOOK)
    return [book_strip(random, first, question, held_out, misspelling) for _ in range(20)], _copies(shape, first, 5)


def draw_strips(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
    """Either of them, two texts in five misspelt."""
    draw = draw_lines if shape.random() < 0.6 else draw_books
    return draw(shape, random, held_out, 0.4)


def draw_verdicts(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
    """Bare verdicts."""
    return [verdict_pair(random) for _ in range(24)], _copies(shape, 0, 1)


def draw_jobs(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
    """Whole pictures with two of their questions, in one copy mostly; strips and bare verdicts among them."""
    kind = shape.random()
    if kind < 0.10:
        return draw_strips(shape, random, held_out)
    if kind < 0.14:
        return draw_verdicts(shape, random, held_out)
    if kind < 0.18:
        return _worn_samples(random, _SHARP, 3, held_out), SHARP
    makes, count = ((scene_pair,), 6) if kind < 0.25 else (_SINGLES, 10)
    return _worn_samples(random, makes, count, held_out), _copies(shape, 0, FULL.rows)


def _worn_samples(random: Random, makes: Sequence[Make], count: int, held_out: bool) -> list[Sample]:
    return [_worn(random, _few_turns(random, random.choice(makes)(random, held_out))) for _ in range(count)]


_SINGLES = (
    *(wider_cover,) * 6,
    *(wider_chart,) * 3,
    *(wider_column,) * 5,
    wider_line,
    *(wider_plot,) * 3,
    scene_sample,
    *(stranger_sample,) * 3,
)


_SHARP = (sharp_cover, sharp_cover, sharp_column)
"""Larger pictures, in 2 x 2 crops: each costs as much as three others."""


def _few_turns(random: Random, sample: Sample) -> Sample:
    """The first question, and three of the others: a question costs a fifth of what its picture does."""
    others = random.sample(sample.turns[1:], min(3, len(sample.turns) - 1))
    return Sample(sample.pictures, [*sample.turns[:1], *others])


def _worn(random: Random, sample: Sample) -> Sample:
    """One in five with the artefacts of JPEG."""
    if random.random() < 0.8:
        return sample
    return Sample(tuple(compressed(p, random.randint(65, 95)) for p in sample.pictures), sample.turns)


def whole(make: Make, count: int = 32, window: Window = FULL) -> Draw:
    """Whole prompts of one kind, as the runtime sends them, with the first question."""

    def draw(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
        samples = [make(random, held_out) for _ in range(count)]
        return [Sample(sample.pictures, sample.turns[:1]) for sample in samples], window

    return draw


def _copies(shape: Random, first: int, rows: int) -> Window:
    """What is drawn stands in the sub-crop, in the global crop or, as in a whole prompt, in both."""
    sub, whole = shape.choice(((True, False), (True, False), (False, True), (False, True), (True, True)))
    return Window(first, rows, sub, whole)


STAGES = {
    "tower": Stage("tower", 1.0, 1.0, draw_strips),
    "strips": Stage("strips", 0.0, 0.0, draw_strips, probes={"line": draw_lines, "book": draw_books}),
    "verdicts": Stage("verdicts", 0.0, 0.0, draw_verdicts, 0.3, {"verdict": draw_verdicts}),
    "jobs": Stage(
        "jobs",
        0.35,
        0.15,
        draw_jobs,
        0.3,
        {
            "cover": whole(cover_sample, 16),
            "sharp cover": whole(sharp_cover_sample, 8, SHARP),
            "chart": whole(chart_sample, 16),
            "column": whole(column_sample, 16),
            "line chart": whole(line_sample, 16),
            "plot": whole(plot_sample, 16),
            "scene pair": whole(scene_pair, 8),
            "stranger": whole(stranger_sample, 8),
        },
    ),
}
