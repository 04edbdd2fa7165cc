"""Pages full of words and odd characters: what the tower learns to read on."""

from __future__ import annotations

from random import Random

from ...hd import CROP
from .canvas import Canvas, Picture, ground, ink
from .fonts import FACES, Font
from .layout import SMALLEST_CHART_TRAINED, SMALLEST_TRAINED
from .words import any_word


def page(random: Random) -> Picture:
    """Lines of text of 16 to 36 pixels, a few larger, in changing faces and colours."""
    below = ground(random)
    canvas = Canvas(ground=below)
    baseline = random.uniform(0, 14)
    while baseline < CROP:
        font = Font(random.choice(FACES), _size(random))
        baseline += font.size * random.uniform(0.98, 1.3)
        fill = ink(random, below)
        x = random.uniform(-4, 30)
        while x < CROP:
            word = any_word(random)
            canvas.text(x, baseline, word, font, fill)
            x += font.width(word) + font.width(" ") * random.uniform(1, 2.5)
            x += random.uniform(5, 50) if random.random() < 0.12 else 0
    return canvas.finish()


def _size(random: Random) -> float:
    kind = random.random()
    if kind < 0.2:
        return random.uniform(SMALLEST_CHART_TRAINED, SMALLEST_TRAINED)
    if kind < 0.55:
        return random.uniform(SMALLEST_TRAINED, 36)
    return random.uniform(SMALLEST_TRAINED, 26) if kind < 0.91 else random.uniform(36, 64)
