"""Pictures that look like those of the jobs, or like photographs, and are neither: what nano must not be fooled by.

Nothing here is taken from a picture of the world: photographs are stood in for by dead leaves, overlapping shapes of
all sizes that are shaded and grainy, whose statistics are those of natural scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ...hd import CROP
from .canvas import COLOURS, Canvas, Colour, Point, ground, ink
from .fonts import FACES, Font
from .words import any_word, plain_word

Pixels = npt.NDArray[np.uint8]
_SMALL = CROP // 2
"""Photographs are made at half size and blown up: as sharp as most, and four times as fast."""


def dead_leaves(random: Random) -> Pixels:
    """Ellipses and polygons of all sizes over each other, in colours of one mood, shaded, grainy and blurred."""
    generator = np.random.default_rng(random.getrandbits(40))
    mood = [random.gauss(120, 50) for _ in range(3)]
    spread = random.uniform(15, 70)
    image = Image.new("RGB", (_SMALL, _SMALL), _of_mood(random, mood, spread))
    pen = ImageDraw.Draw(image)
    for _ in range(random.randint(15, 220)):
        size = min(_SMALL, 3 / random.random() ** random.uniform(0.6, 1.2))
        _leaf(random, pen, size, _of_mood(random, mood, spread))
    image = image.filter(ImageFilter.GaussianBlur(random.choice((0, 0.5, 0.8, 1.5, 3))))
    pixels = np.asarray(image).astype(np.float32)
    pixels *= _light(random)[..., np.newaxis]
    pixels += generator.normal(0, random.choice((1, 4, 10, 20)), pixels.shape)
    if random.random() < 0.25:
        pixels[:] = pixels.mean(axis=-1, keepdims=True)
    return _enlarged(pixels)


def surface(random: Random) -> Pixels:
    """One material all over: grain whose strength falls with its fineness, at times along one direction."""
    generator = np.random.default_rng(random.getrandbits(40))
    across, down = (np.fft.fftfreq(_SMALL) for _ in range(2))
    stretch = random.choice((1.0, 1.0, random.uniform(2, 8)))
    radius = np.hypot(across[np.newaxis] * stretch, down[:, np.newaxis]) + 1 / _SMALL
    waves = np.fft.fft2(generator.normal(size=(_SMALL, _SMALL))) / radius ** random.uniform(0.7, 1.8)
    grain = np.fft.ifft2(waves).real
    grain = (grain / grain.std())[..., np.newaxis] * random.uniform(15, 55)
    tint = np.array([random.uniform(0.6, 1.0) for _ in range(3)])
    return _enlarged((random.uniform(70, 190) + grain) * tint * _light(random)[..., np.newaxis])


def silhouette(random: Random) -> Pixels:
    """One or two dark bodies with limbs on a plain ground, or the other way round."""
    below, fill = ground(random), (0, 0, 0)
    if random.random() < 0.5:
        fill = ink(random, below)
    if random.random() < 0.3:
        below, fill = (255, 255, 255), random.choice(((0, 0, 0), (30, 30, 30)))
    image = Image.new("RGB", (CROP, CROP), below)
    pen = ImageDraw.Draw(image)
    for _ in range(random.choice((1, 1, 1, 2))):
        _body(random, pen, fill)
    return np.asarray(image)


def document(random: Random) -> Pixels:
    """A page of print too small to read, in paragraphs and columns, at times a little turned and unevenly lit."""
    paper, dark = random.randint(170, 255), random.randint(0, 80)
    image = Image.new("RGB", (CROP, CROP), (paper, paper, round(paper * random.uniform(0.9, 1.0))))
    pen = ImageDraw.Draw(image)
    size = random.uniform(6, 13)
    font = Font(random.choice((*FACES, "DejaVuSerif.ttf", "LiberationSerif-Regular.ttf")), size).drawable(1.0)
    columns = random.choice((1, 1, 2))
    for column in range(columns):
        left, right = (CROP * (column + end) / columns for end in (0, 1))
        _column(random, pen, (left + random.uniform(4, 16), right - random.uniform(4, 16)), size, font, dark)
    if random.random() < 0.4:
        image = image.rotate(random.gauss(0, 3), Image.Resampling.BILINEAR, fillcolor=(paper, paper, paper))
    pixels = np.asarray(image).astype(np.float32)
    if random.random() < 0.5:
        light = Image.fromarray(_light(random)).resize((CROP, CROP), Image.Resampling.BILINEAR)
        pixels *= np.asarray(light)[..., np.newaxis]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def pie(random: Random) -> Pixels:
    """A chart of slices, labelled beside them: a chart, and none that nano reads."""
    canvas = Canvas(ground=(below := ground(random)))
    dark = ink(random, below)
    font = Font(random.choice(FACES), random.uniform(15, 22))
    canvas.centred(CROP / 2, 1.4 * font.size, plain_word(random).capitalize(), font, dark)
    x, y, radius = CROP / 2, CROP / 2 + 15, random.uniform(70, 110)
    angle, shares = random.uniform(0, 360), [random.uniform(1, 5) for _ in range(random.randint(3, 7))]
    for share in shares:
        end = angle + 360 * share / sum(shares)
        points = [(x, y), *(_on_circle(x, y, radius, angle + (end - angle) * n / 20) for n in range(21))]
        canvas.polygon(points, random.choice(list(COLOURS.values())))
        at_x, at_y = _on_circle(x, y, radius + 24, (angle + end) / 2)
        canvas.centred(at_x, at_y, random.choice((plain_word(random)[:6], f"{random.randint(1, 99)}%")), font, dark)
        angle = end
    return canvas.finish().pixels


def scatter(random: Random) -> Pixels:
    """Axes with a cloud of points between them."""
    canvas = Canvas(ground=(below := ground(random)))
    dark, font = ink(random, below), Font(random.choice(FACES), random.uniform(14, 20))
    canvas.line([(45, 30), (45, 300), (325, 300)], dark)
    for tick in range(random.randint(2, 5)):
        canvas.text(45 + 60 * tick, 322, str(tick * 10), font, dark)
        canvas.text(8, 300 - 55 * tick, str(tick * 5), font, dark)
    fill, radius = random.choice(list(COLOURS.values())), random.uniform(2, 6)
    slope, spread = random.uniform(-1, 1), random.uniform(8, 70)
    for _ in range(random.randint(15, 120)):
        x = random.uniform(55, 320)
        y = min(292.0, max(35.0, 165 + slope * (x - 190) + random.gauss(0, spread)))
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    return canvas.finish().pixels


def _of_mood(random: Random, mood: Sequence[float], spread: float) -> Colour:
    light = random.gauss(0, spread)
    red, green, blue = (min(255, max(0, round(part + light + random.gauss(0, spread / 3)))) for part in mood)
    return red, green, blue


def _leaf(random: Random, pen: ImageDraw.ImageDraw, size: float, fill: Colour) -> None:
    x, y, flat = random.uniform(0, _SMALL), random.uniform(0, _SMALL), random.uniform(0.3, 1.0)
    if random.random() < 0.5:
        pen.ellipse((x - size, y - size * flat, x + size, y + size * flat), fill)
    else:
        corners = random.randint(3, 9)
        turns = sorted(random.uniform(0, 360) for _ in range(corners))
        pen.polygon([_on_circle(x, y, size * random.uniform(0.4, 1), turn) for turn in turns], fill)


def _body(random: Random, pen: ImageDraw.ImageDraw, fill: Colour) -> None:
    """A trunk, limbs that bend, a head."""
    x, y = random.uniform(110, 226), random.uniform(110, 200)
    wide, high = random.uniform(35, 95), random.uniform(20, 60)
    pen.ellipse((x - wide, y - high, x + wide, y + high), fill)
    for _ in range(random.randint(2, 6)):
        at = (x + random.uniform(-0.8, 0.8) * wide, y)
        thick = random.randint(6, 24)
        for _ in range(2):
            to = (at[0] + random.gauss(0, 30), at[1] + random.gauss(40, 30))
            pen.line([at, to], fill, thick)
            pen.ellipse((to[0] - thick / 2, to[1] - thick / 2, to[0] + thick / 2, to[1] + thick / 2), fill)
            at = to
    side = random.choice((-1, 1))
    head = (x + side * wide * random.uniform(0.9, 1.3), y - high * random.uniform(0.5, 1.8))
    pen.line([(x + side * wide * 0.6, y), head], fill, random.randint(14, 34))
    large = random.uniform(12, 34)
    pen.ellipse((head[0] - large, head[1] - 0.7 * large, head[0] + large, head[1] + 0.7 * large), fill)


def _column(
    random: Random, pen: ImageDraw.ImageDraw, sides: tuple[float, float], size: float, font: object, dark: int
) -> None:
    y = random.uniform(0, 20)
    while y < CROP:
        x = sides[0]
        end = sides[1] if random.random() < 0.85 else sides[0] + random.uniform(0.2, 0.9) * (sides[1] - sides[0])
        while x < end:
            word = any_word(random)
            pen.text((x, y), word, font=font, fill=(dark, dark, dark))  # type: ignore[arg-type]
            x += 0.55 * size * (len(word) + 1)
        y += size * (1.25 if random.random() < 0.85 else 2.2)


def _light(random: Random) -> npt.NDArray[np.float32]:
    """Brightness over a half-size picture: a slope, and darker corners."""
    steps = np.linspace(-1, 1, _SMALL, dtype=np.float32)
    across, down = random.uniform(-0.35, 0.35), random.uniform(-0.35, 0.35)
    slope = 1 + across * steps[np.newaxis] + down * steps[:, np.newaxis]
    corners = random.uniform(0, 0.3) * (steps[np.newaxis] ** 2 + steps[:, np.newaxis] ** 2) / 2
    return (slope - corners).astype(np.float32)


def _enlarged(pixels: npt.NDArray[np.floating]) -> Pixels:
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((CROP, CROP), Image.Resampling.BICUBIC))


def _on_circle(x: float, y: float, radius: float, degrees: float) -> Point:
    return x + radius * math.cos(math.radians(degrees)), y + radius * math.sin(math.radians(degrees))
