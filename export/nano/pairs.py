"""Two pictures that differ in one thing, or in none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from .canvas import COLOURS, SHAPES, Canvas, Picture
from .samples import VERDICT, Sample, Turn
from .scenes import Scene, draw_scene
from .vocabulary import FIRST, SECOND, VERDICTS

COMPARE = (
    "What is difference in this two images?",
    "What is the difference between these two images?",
    "Compare the two images.",
    "What is different?",
    "What is the difference?",
)


def scene_pair(random: Random, held_out: bool = False) -> Sample:
    """Two scenes without a word: another number, shape or colour, or the same."""
    scene, other, kind = _two_scenes(random)
    style = random.getrandbits(40)
    first, _ = draw_scene(scene, style)
    second, _ = draw_scene(other, style if random.random() < 0.5 else random.getrandbits(40))
    return Sample((first, second), (Turn("scene pair", random.choice(COMPARE), _comparison(scene, other, kind)),))


def verdict_pair(random: Random) -> Sample:
    """The verdict on two scenes out of their descriptions alone: the pictures are blank, the rest is not learned."""
    scene, other, kind = _two_scenes(random)
    return Sample((_blank(), _blank()), (Turn(VERDICT, random.choice(COMPARE), _comparison(scene, other, kind)),))


def _two_scenes(random: Random) -> tuple[Scene, Scene, str]:
    scene = replace(Scene.draw(random), word=None)
    kind = random.choice(("number", "shape", "color", "none"))
    return scene, _changed(random, scene, kind), kind


def _comparison(first: Scene, second: Scene, kind: str) -> tuple[str, ...]:
    return (FIRST, *first.description, SECOND, *second.description, VERDICTS[kind])


@cache
def _blank() -> Picture:
    return Canvas().finish()


def _changed(random: Random, scene: Scene, kind: str) -> Scene:
    if kind == "number":
        return replace(scene, count=random.choice([n for n in range(1, 5) if n != scene.count]))
    if kind == "shape":
        return replace(scene, shape=random.choice([s for s in SHAPES if s != scene.shape]))
    if kind == "color":
        return replace(scene, colour=random.choice([c for c in COLOURS if c != scene.colour]))
    return scene
