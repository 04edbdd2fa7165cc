"""Bar charts: a title on top, lying bars with a label and a printed value each, one of them clearly the longest."""

from __future__ import annotations

from random import Random

from ...hd import CROP
from .canvas import BAR, COLOURS, Canvas, Picture, any_size
from .chart_data import Data, chart_data
from .chart_frame import behind, heading, paint_bars, text_colour
from .chart_questions import Chart, Places, ask
from .fonts import FACES, Font
from .layout import SMALLEST_TEXT
from .samples import Sample


def chart_sample(random: Random, held_out: bool = False) -> Sample:
    """One chart with questions about it."""
    return ask(random, lying_chart(random, held_out))


def wider_chart(random: Random, held_out: bool = False) -> Sample:
    """One to train on, with misspelt words."""
    return ask(random, lying_chart(random, held_out, misspelling=0.25))


def lying_chart(random: Random, held_out: bool = False, misspelling: float = 0.0) -> Chart:
    """Lying bars of any data."""
    data = chart_data(random, held_out, misspelling=misspelling)
    height = random.choice((CROP, CROP, 290)) if len(data.labels) < 7 else CROP
    picture, places = draw_chart(random, data, height)
    return Chart(picture, data, places)


def draw_chart(random: Random, data: Data, height: int = CROP) -> tuple[Picture, Places]:
    """Bars that lie, labels on their left, values at their ends."""
    below = behind(random)
    canvas = Canvas(any_size(random, CROP, height), below)
    dark, face = text_colour(below), random.choice(FACES)
    size = min(random.uniform(SMALLEST_TEXT, 25), (height - 40) / len(data.labels) * 0.75)
    size = max(SMALLEST_TEXT, min(size, 115 / max(Font(face, 1.0).width(label) for label in data.labels)))
    font = Font(face, size)
    places = Places(*heading(random, canvas, data.title, face, dark))
    top, bottom = places.below_title, canvas.top + canvas.height - 6
    start = canvas.left + 10 + max(map(font.width, data.labels))
    canvas.line([(start, top), (start, bottom)], dark)
    slot = (bottom - top) / len(data.labels)
    thick = slot * random.uniform(0.5, 0.75)
    room = canvas.left + canvas.width - start - 10 - max(map(font.width, data.values))
    largest = max(map(float, data.values))
    paint = paint_bars(random, len(data.labels), below)
    for index, (label, value) in enumerate(zip(data.labels, data.values, strict=True)):
        middle = top + slot * (index + 0.5)
        length = max(2.0, room * float(value) / largest)
        box = (start, middle - thick / 2, start + length, middle + thick / 2)
        canvas.rectangle(box, COLOURS[paint[index]])
        canvas.mark(box, BAR, paint[index])
        baseline = middle + 0.36 * size
        places.values.append(canvas.text(start + length + 5, baseline, value, font, dark))
        places.labels.append(canvas.text(start - 5 - font.width(label), baseline, label, font, dark))
    return canvas.finish(), places
