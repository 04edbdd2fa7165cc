"""The stages of training: what each draws, and which parts it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .batches import FULL, Window
from .charts import chart_sample
from .covers import cover_sample
from .pairs import cover_pair, scene_pair
from .samples import Sample
from .scenes import scene_sample
from .strangers import stranger_sample
from .strips import BOOK, READ, book_strip, line_strip

Draw = Callable[[Random, float, bool], tuple[list[Sample], Window]]
"""(random, share of the usual batch, held-out words?) -> samples of one shape, and their window."""

Make = Callable[[Random, bool], Sample]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; without `draw` it only reads, with `moves_tower` false the vision tower stays as it is."""

    name: str
    moves_tower: bool
    draw: Draw | None = None
    guide: float = 0.5
    """Weight of the attention guide."""
    probes: dict[str, Draw] = field(default_factory=dict)
    """What held-out accuracy is measured on, by name."""


def draw_lines(random: Random, share: float, held_out: bool) -> tuple[list[Sample], Window]:
    """Strips of one line."""
    first, question = random.randrange(11), random.choice(READ)
    samples = [line_strip(random, first, question, held_out) for _ in range(max(2, round(64 * share)))]
    return samples, _copies(random, first, 2)


def draw_books(random: Random, share: float, held_out: bool) -> tuple[list[Sample], Window]:
    """Strips of a title and an author."""
    first, question = random.randrange(8), random.choice(BOOK)
    samples = [book_strip(random, first, question, held_out) for _ in range(max(2, round(24 * share)))]
    return samples, _copies(random, first, 5)


def draw_strips(random: Random, share: float, held_out: bool) -> tuple[list[Sample], Window]:
    """Either of them."""
    return (draw_lines if random.random() < 0.65 else draw_books)(random, share, held_out)


def draw_jobs(random: Random, share: float, held_out: bool) -> tuple[list[Sample], Window]:
    """Whole pictures with their questions, in one copy mostly, and strips among them."""
    kind = random.random()
    if kind < 0.25:
        return draw_strips(random, share, held_out)
    if kind < 0.45:
        return _several(random, (scene_pair, scene_pair, cover_pair), 5 * share, held_out)
    return _several(
        random,
        (cover_sample,) * 8 + (chart_sample,) * 8 + (scene_sample,) * 3 + (stranger_sample,),
        10 * share,
        held_out,
    )


def _several(random: Random, makes: tuple[Make, ...], count: float, held_out: bool) -> tuple[list[Sample], Window]:
    samples = [random.choice(makes)(random, held_out) for _ in range(max(2, round(count)))]
    return samples, _copies(random, 0, FULL.rows)


def whole(make: Make, count: int = 12) -> Draw:
    """Whole prompts of one kind, as the runtime sends them."""

    def draw(random: Random, share: float, held_out: bool) -> tuple[list[Sample], Window]:
        return [make(random, held_out) for _ in range(max(1, round(count * share)))], FULL

    return draw


def _copies(random: Random, first: int, rows: int) -> Window:
    """What is drawn stands in the sub-crop, in the global crop or, as in a whole prompt, in both."""
    sub, whole = random.choice(((True, False), (True, False), (False, True), (False, True), (True, True)))
    return Window(first, rows, sub, whole)


STAGES = {
    "tower": Stage("tower", moves_tower=True),
    "strips": Stage("strips", False, draw_strips, probes={"line": draw_lines, "book": draw_books}),
    "jobs": Stage(
        "jobs",
        True,
        draw_jobs,
        0.2,
        {
            "line": draw_lines,
            "cover": whole(cover_sample),
            "chart": whole(chart_sample),
            "scene": whole(scene_sample),
            "stranger": whole(stranger_sample),
            "scene pair": whole(scene_pair, 6),
            "cover pair": whole(cover_pair, 6),
        },
    ),
}
STAGES["jobs-frozen"] = Stage("jobs-frozen", False, draw_jobs, 0.3, STAGES["jobs"].probes)
