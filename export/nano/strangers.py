"""Pictures far from nano's world, which it must own to not knowing."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...hd import CROP
from ..dims import PATCHES
from .canvas import COLOURS, Canvas, Picture, Point, ground, ink
from .chart_questions import INTRODUCE
from .covers import TITLE_QUESTIONS
from .lookalikes import dead_leaves, document, pie, scatter, silhouette, surface
from .pages import page
from .samples import GENERAL, Sample, Turn
from .scenes import DESCRIBE
from .strips import BOOK

UNKNOWN = "I don't know this kind of picture."


def stranger_sample(random: Random, held_out: bool = False) -> Sample:
    """Noise, gradients, blobs, stripes, an empty picture, outlines, crowds of shapes, pages of text, silhouettes, what
    resembles photographs and surfaces, pies and scatter plots.

    `held_out`: kinds never trained on, which are rings, a chequered floor and clouds over a plain.
    """
    return ask_stranger(random, random.choice(_NEVER_TRAINED if held_out else _TRAINED)(random))


def ask_stranger(random: Random, picture: Picture) -> Sample:
    """Any job's question about a picture that it is not for."""
    asked = random.choice((*BOOK, *INTRODUCE, *DESCRIBE, *TITLE_QUESTIONS, *GENERAL))
    return Sample((picture,), (Turn("stranger", asked, (UNKNOWN,)),))


def _noise(random: Random) -> Picture:
    generator = np.random.default_rng(random.getrandbits(40))
    grain = random.choice((1, 2, 4))
    small = generator.integers(0, 256, (CROP // grain, CROP // grain, 3), dtype=np.uint8)
    return _picture(small.repeat(grain, axis=0).repeat(grain, axis=1))


def _gradient(random: Random) -> Picture:
    steps = np.linspace(0, 1, CROP)
    one, two = np.array(ground(random)), np.array(ground(random))
    mixed = one + (two - one) * steps[:, np.newaxis]
    pixels = np.broadcast_to(mixed[:, np.newaxis], (CROP, CROP, 3))
    return _picture(pixels if random.random() < 0.5 else pixels.swapaxes(0, 1))


def _blobs(random: Random) -> Picture:
    generator = np.random.default_rng(random.getrandbits(40))
    size = random.randint(3, 14)
    small = Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8))
    return _picture(np.asarray(small.resize((CROP, CROP), Image.Resampling.BICUBIC)))


def _stripes(random: Random) -> Picture:
    canvas = Canvas(ground=ground(random))
    for _ in range(random.randint(4, 30)):
        ends = [(random.uniform(0, CROP), random.uniform(0, CROP)) for _ in range(2)]
        canvas.line(ends, ground(random))
    return canvas.finish()


def _blank(random: Random) -> Picture:
    return Canvas(ground=ground(random)).finish()


def _outlines(random: Random) -> Picture:
    """Polygons of three to eight corners, drawn and not filled."""
    canvas = Canvas(ground=(below := ground(random)))
    for _ in range(random.randint(1, 4)):
        points, fill = _polygon(random, random.uniform(30, 110)), ink(random, below)
        for shift in range(random.randint(1, 6)):
            moved = [(x + shift, y + shift) for x, y in points]
            canvas.line([*moved, moved[0]], fill)
    return canvas.finish()


def _crowd(random: Random) -> Picture:
    """More shapes, and smaller ones, than any scene has, in the colours of scenes."""
    canvas = Canvas(ground=ground(random))
    for _ in range(random.randint(7, 40)):
        points, fill = _polygon(random, random.uniform(6, 28)), random.choice(tuple(COLOURS.values()))
        if random.random() < 0.4:
            canvas.ellipse((*points[0], points[0][0] + 30, points[0][1] + random.uniform(10, 40)), fill)
        else:
            canvas.polygon(points, fill)
    return canvas.finish()


def _polygon(random: Random, size: float) -> list[Point]:
    """Corners around a middle somewhere, at uneven distances from it."""
    x, y, turn = random.uniform(0, CROP), random.uniform(0, CROP), random.uniform(0, math.tau)
    corners = random.randint(3, 8)
    angles = [turn + math.tau * corner / corners for corner in range(corners)]
    radii = [size * random.uniform(0.5, 1) for _ in angles]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]


def _rings(random: Random) -> Picture:
    canvas = Canvas(ground=ground(random))
    x, y, step = random.uniform(100, 236), random.uniform(100, 236), random.uniform(9, 24)
    for ring in range(random.randint(4, 12), 0, -1):
        canvas.ellipse((x - ring * step, y - ring * step, x + ring * step, y + ring * step), ground(random))
    return canvas.finish()


def _chequers(random: Random) -> Picture:
    squares = np.indices((CROP, CROP)) // random.randint(20, 56)
    dark = (squares.sum(axis=0) % 2)[..., np.newaxis]
    return _picture(np.where(dark, np.array(ground(random)), np.array(ground(random))))


def _clouds(random: Random) -> Picture:
    """A sky of noise in octaves above a plain that darkens."""
    generator = np.random.default_rng(random.getrandbits(40))
    sky = np.zeros((CROP, CROP))
    for octave in range(1, 6):
        rough = Image.fromarray(generator.random((2 + 2**octave, 2 + 2**octave)).astype(np.float32))
        sky += np.asarray(rough.resize((CROP, CROP), Image.Resampling.BICUBIC)) / 2**octave
    blue, white, plain = (np.array(ground(random)) for _ in range(3))
    pixels = blue + (white - blue) * np.clip(sky, 0, 1)[..., np.newaxis]
    horizon = random.randint(180, 300)
    pixels[horizon:] = plain * np.linspace(1, 0.5, CROP - horizon)[:, np.newaxis, np.newaxis]
    return _picture(np.clip(pixels, 0, 255))


def _from(draw: Callable[[Random], npt.NDArray[np.uint8]]) -> Callable[[Random], Picture]:
    """A kind of picture of which the pixels are all there is."""
    return lambda random: _picture(draw(random))


_TRAINED = (
    *(_noise, _gradient, _blobs, _stripes, _blank, _outlines, _crowd, page),
    *map(_from, (dead_leaves, dead_leaves, dead_leaves, surface, silhouette, silhouette)),
    *map(_from, (document, document, pie, scatter)),
)
_NEVER_TRAINED = (_rings, _chequers, _clouds)


def _picture(pixels: npt.ArrayLike) -> Picture:
    values = np.ascontiguousarray(pixels).astype(np.uint8)
    nothing = np.zeros((PATCHES, PATCHES), dtype=np.uint8)
    return Picture(Image.fromarray(values), values, (), nothing, nothing)
