"""Scenes: one to four shapes of one kind and colour, set out as on a die, at times with a word below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from ...hd import CROP
from .canvas import COLOURS, SHAPES, Canvas, Picture, Point, any_size, ink, luminance
from .fonts import FACES, Font
from .layout import SMALLEST_TEXT
from .samples import Sample, Turn, question
from .vocabulary import NUMBERS, Copied
from .words import words

DESCRIBE = ("What is in this image?", "Describe this image.", "What do you see?", "What shapes are there?")
_SPOTS = {
    1: ((0, 0),),
    2: ((-1, 0), (1, 0)),
    3: ((-1, 1), (0, -1), (1, 1)),
    4: ((-1, -1), (1, -1), (-1, 1), (1, 1)),
}
_APART = (78, 66)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a scene shows."""

    count: int
    shape: str
    colour: str
    word: str | None = None

    @classmethod
    def draw(cls, random: Random) -> Scene:
        """Any scene; one in three with a word."""
        word = random.choice(words("nouns")).capitalize() if random.random() < 1 / 3 else None
        return cls(random.randint(1, 4), random.choice(SHAPES), random.choice(tuple(COLOURS)), word)

    @property
    def description(self) -> tuple[str, ...]:
        """E.g. " three red circles", a token for each thing that may differ."""
        plural = ("s",) if self.count > 1 else ()
        return (f" {NUMBERS[self.count - 1]}", f" {self.colour}", f" {self.shape}", *plural)


def draw_scene(scene: Scene, style: int) -> tuple[Picture, Copied | None]:
    """The picture, and the word as it stands in it."""
    taste = Random(style)
    paint = COLOURS[scene.colour]
    while True:
        light = [taste.randint(225, 255) for _ in range(3)]
        below = (light[0], light[1], light[2])
        if abs(luminance(below) - luminance(paint)) > 30:
            break
    canvas = Canvas(any_size(taste, CROP, CROP), below)
    middle = (CROP / 2 + taste.uniform(-14, 14), 138 + taste.uniform(-6, 6))
    for column, row in _SPOTS[scene.count]:
        x, y = (m + d * apart for m, d, apart in zip(middle, (column, row), _APART, strict=True))
        _shape(canvas, scene, x + taste.uniform(-6, 6), y + taste.uniform(-6, 6), taste.uniform(44, 52))
    if scene.word is None:
        return canvas.finish(), None
    font = Font(taste.choice(FACES), taste.uniform(SMALLEST_TEXT, 34))
    places = canvas.centred(CROP / 2, taste.uniform(290, 322), scene.word, font, ink(taste, below))
    return canvas.finish(), Copied(scene.word, tuple(places))


def scene_sample(random: Random, held_out: bool = False) -> Sample:
    """One scene with the question what it shows."""
    scene = Scene.draw(random)
    picture, word = draw_scene(scene, random.getrandbits(40))
    written = () if word is None else (' and the word "', word, '"')
    answer = ("The image shows", *scene.description, *written, ".")
    return Sample((picture,), (Turn("scene", question(random, DESCRIBE), answer),))


def _shape(canvas: Canvas, scene: Scene, x: float, y: float, size: float) -> None:
    box, fill = (x - size, y - size, x + size, y + size), COLOURS[scene.colour]
    if scene.shape == "circle":
        canvas.ellipse(box, fill)
    elif scene.shape == "square":
        canvas.rectangle(box, fill)
    else:
        canvas.polygon([(x + size * a, y + size * b) for a, b in _OUTLINES[scene.shape]], fill)
    canvas.count_as(x, y, "*")
    inner = 0.8 * size
    canvas.mark((x - inner, y - inner, x + inner, y + inner), 1 + SHAPES.index(scene.shape), scene.colour)


def _star() -> list[Point]:
    radii = [1.0 if n % 2 == 0 else 0.42 for n in range(10)]
    return [(r * math.sin(math.pi * n / 5), -r * math.cos(math.pi * n / 5)) for n, r in enumerate(radii)]


_OUTLINES: dict[str, list[Point]] = {
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
    "star": _star(),
}
