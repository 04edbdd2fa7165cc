"""The stages of training: what each draws, and which parts it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .batches import FULL, Window
from .canvas import compressed
from .charts import chart_sample, wider_chart
from .covers import cover_sample, wider_cover
from .pairs import scene_pair, verdict_pair
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
    if kind < 0.16:
        return draw_strips(shape, random, held_out)
    if kind < 0.21:
        return draw_verdicts(shape, random, held_out)
    makes, count = ((scene_pair,), 6) if kind < 0.29 else (_SINGLES, 10)
    samples = [_worn(random, _few_turns(random, random.choice(makes)(random, held_out))) for _ in range(count)]
    return samples, _copies(shape, 0, FULL.rows)


_SINGLES = (wider_cover,) * 10 + (wider_chart,) * 6 + (scene_sample, stranger_sample, stranger_sample)


def _few_turns(random: Random, sample: Sample) -> Sample:
    """The first question, and one of the others."""
    return Sample(sample.pictures, [*sample.turns[:1], *random.sample(sample.turns[1:], min(1, len(sample.turns) - 1))])


def _worn(random: Random, sample: Sample) -> Sample:
    """One in five with the artefacts of JPEG."""
    if random.random() < 0.8:
        return sample
    return Sample(tuple(compressed(p, random.randint(65, 95)) for p in sample.pictures), sample.turns)


def whole(make: Make, count: int = 32) -> Draw:
    """Whole prompts of one kind, as the runtime sends them, with the first question."""

    def draw(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
        samples = [make(random, held_out) for _ in range(count)]
        return [Sample(sample.pictures, sample.turns[:1]) for sample in samples], FULL

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
        0.2,
        draw_jobs,
        0.3,
        {
            "cover": whole(cover_sample),
            "chart": whole(chart_sample),
            "scene pair": whole(scene_pair, 16),
            "stranger": whole(stranger_sample, 16),
        },
    ),
}
