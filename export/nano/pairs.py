"""Two pictures that differ in one thing, or in none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from .canvas import COLOURS, SHAPES, Canvas, Picture
from .covers import cover_texts, draw_cover
from .samples import VERDICT, Sample, Turn
from .scenes import Description, Scene, describe, draw_scene
from .vocabulary import VERDICTS, Copied
from .words import words

COMPARE = (
    "What is difference in this two images?",
    "What is the difference between these two images?",
    "Compare the two images.",
    "What is different?",
    "What is the difference?",
)


def scene_pair(random: Random, held_out: bool = False) -> Sample:
    """Two scenes: another number, shape, colour or word, or the same."""
    scene, other, kind = _two_scenes(random)
    style = random.getrandbits(40)
    first, first_word = draw_scene(scene, style, 0)
    second, second_word = draw_scene(other, style if random.random() < 0.5 else random.getrandbits(40), 1)
    answer = _comparison(describe(scene, first_word), describe(other, second_word), kind)
    return Sample((first, second), (Turn("scene pair", random.choice(COMPARE), answer),))


def verdict_pair(random: Random) -> Sample:
    """The verdict on two scenes out of their descriptions alone: the pictures are blank, the rest is not learned."""
    scene, other, kind = _two_scenes(random)
    first, second = (describe(s, Copied(s.word) if s.word else None) for s in (scene, other))
    return Sample((_blank(), _blank()), (Turn(VERDICT, random.choice(COMPARE), _comparison(first, second, kind)),))


def cover_pair(random: Random, held_out: bool = False) -> Sample:
    """Two covers: another title or another author."""
    texts = cover_texts(random, held_out)
    other = cover_texts(random, held_out)
    while other[0] == texts[0] or other[1] == texts[1]:
        other = cover_texts(random, held_out)
    kind = random.choice(("title", "author"))
    changed = (other[0], texts[1]) if kind == "title" else (texts[0], other[1])
    style = random.getrandbits(40)
    first = draw_cover(*texts, style, 0)
    second = draw_cover(*changed, style if random.random() < 0.5 else random.getrandbits(40), 1)
    one, two = (first.title, second.title) if kind == "title" else (first.author, second.author)
    answer = (f'The {kind} is different: "', one, '" in the first image and "', two, '" in the second image.')
    return Sample((first.picture, second.picture), (Turn("cover pair", random.choice(COMPARE), answer),))


def _two_scenes(random: Random) -> tuple[Scene, Scene, str]:
    scene = Scene.draw(random)
    kind = random.choice(("number", "shape", "color", "word" if scene.word else "number", "none"))
    return scene, _changed(random, scene, kind), kind


def _comparison(first: Description, second: Description, kind: str) -> Description:
    return ("The first image shows", *first, ". The second image shows", *second, VERDICTS[kind])


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
    if kind == "word":
        others = [w.capitalize() for w in words("nouns") if w.capitalize() != scene.word]
        return replace(scene, word=random.choice(others))
    return scene
