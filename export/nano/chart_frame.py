"""What charts of columns and lines have in common: a title, axes; at times a grid, ticks, a legend, axis titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ...hd import CROP
from .canvas import COLOURS, WHITE, Canvas, Colour, Place, any_size, ground, luminance
from .chart_data import Data, chart_data
from .chart_questions import Places
from .fonts import FACES, Font
from .layout import SMALLEST_TEXT
from .words import plain_word

_TICKS_WIDTH = 34


@dataclass(slots=True)
class Frame:
    """The room in which columns stand or a line runs, and the canvas, font and colours of it."""

    canvas: Canvas
    below: Colour
    dark: Colour
    font: Font
    places: Places
    left: float
    right: float
    top: float
    bottom: float
    slot: float

    def middle(self, index: int) -> float:
        """Where a column or a point stands, from the left."""
        return self.left + self.slot * (index + 0.5)


@dataclass(frozen=True, slots=True)
class Extras:
    """What a chart has beside title, labels and values, none of it asked about."""

    ticks: bool
    grid: bool
    box: bool
    legend: str | None
    x_title: str | None
    y_title: str | None

    @classmethod
    def draw(cls, random: Random, held_out: bool = False) -> Extras:
        """Each in some charts."""

        def word(share: float) -> str | None:
            return plain_word(random, held_out).capitalize() if random.random() < share else None

        ticks = random.random() < 0.4
        return cls(ticks, random.random() < 0.4, random.random() < 0.3, word(0.25), word(0.25), word(0.2))


def fitting_data(
    random: Random, extras: Extras, smallest: float, held_out: bool = False, misspelling: float = 0.0
) -> Data:
    """Labels and values that stand side by side in letters of `smallest` pixels."""
    width = CROP - 16 - (_TICKS_WIDTH if extras.ticks else 0)
    font = Font(FACES[0], smallest)
    while True:
        data = chart_data(random, held_out, misspelling=misspelling)
        if max(map(font.width, (*data.labels, *data.values))) <= 0.94 * width / len(data.labels):
            return data


def draw_frame(random: Random, data: Data, extras: Extras, smallest: float, zoom: int = 1) -> Frame:
    """Everything but the columns or the line, with the labels below their places."""
    below = behind(random)
    canvas = Canvas(any_size(random, CROP, random.choice((CROP, CROP, 300, 260)), zoom), below, zoom)
    dark, face = text_colour(below), random.choice(FACES)
    left = canvas.left + 8 + (_TICKS_WIDTH if extras.ticks else 0)
    right = canvas.left + canvas.width - 8
    slot = (right - left) / len(data.labels)
    widest = max(Font(face, 1.0).width(text) for text in (*data.labels, *data.values))
    font = Font(face, max(smallest, min(random.uniform(smallest, smallest + 8), 0.94 * slot / widest)))
    if font.width("0") * widest / Font(face, 1.0).width("0") > slot:
        font = Font(FACES[0], smallest)
    places = Places(*heading(random, canvas, data.title, face, dark, max(smallest, font.size)))
    top = places.below_title
    if extras.legend or extras.y_title:
        top += 1.2 * font.size
        _above(random, canvas, extras, font, dark, top - 0.25 * font.size)
    end = canvas.top + canvas.height - (1.3 * font.size if extras.x_title else 0)
    if extras.x_title:
        canvas.centred((left + right) / 2, canvas.top + canvas.height - 0.4 * font.size, extras.x_title, font, dark)
    bottom = end - 1.6 * font.size
    frame = Frame(canvas, below, dark, font, places, left, right, top + 1.2 * font.size, bottom, slot)
    _axes(random, frame, data, extras)
    for index, label in enumerate(data.labels):
        places.labels.append(canvas.centred(frame.middle(index), bottom + 1.2 * font.size, label, font, dark))
    return frame


def _above(random: Random, canvas: Canvas, extras: Extras, font: Font, dark: Colour, baseline: float) -> None:
    """The title of the upright axis on the left, the legend on the right of one line."""
    if extras.y_title:
        canvas.text(canvas.left + 6, baseline, extras.y_title, font, dark)
    if extras.legend:
        x = canvas.left + canvas.width - 8 - font.width(extras.legend)
        if extras.y_title and x - 2 * font.size < canvas.left + 6 + font.width(extras.y_title):
            return
        box = (x - 1.1 * font.size, baseline - 0.65 * font.size, x - 0.4 * font.size, baseline)
        canvas.rectangle(box, random.choice(list(COLOURS.values())))
        canvas.text(x, baseline, extras.legend, font, dark)


def _axes(random: Random, frame: Frame, data: Data, extras: Extras) -> None:
    canvas, left, right, bottom = frame.canvas, frame.left, frame.right, frame.bottom
    top = frame.top - 0.8 * frame.font.size
    pale = _between(frame.below, frame.dark, random.uniform(0.12, 0.4))
    largest, lines = max(map(float, data.values)), random.randint(2, 5)
    small = Font(frame.font.face, min(frame.font.size, 14))
    for line in range(lines + 1):
        y = bottom - (bottom - top) * line / lines
        if extras.grid:
            canvas.line([(left, y), (right, y)], pale)
        if extras.ticks:
            text = _tick(largest * line / lines)
            canvas.text(left - 4 - small.width(text), y + 0.36 * small.size, text, small, frame.dark)
    canvas.line([(left, bottom), (right, bottom)], frame.dark)
    if extras.ticks or extras.box:
        canvas.line([(left, top), (left, bottom)], frame.dark)
    if extras.box:
        canvas.line([(left, top), (right, top), (right, bottom)], frame.dark)


def _tick(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _between(one: Colour, two: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def heading(
    random: Random, canvas: Canvas, title: str, face: str, dark: Colour, smallest: float = SMALLEST_TEXT
) -> tuple[list[Place], float]:
    """The title in one line, of `smallest` pixels or more; where it ends below."""
    font = Font(face, random.uniform(smallest, smallest + 6))
    while font.width(title) > canvas.width - 10 and font.size > smallest:
        font = Font(face, max(smallest, font.size * 0.95))
    baseline = canvas.top + random.uniform(1.0, 1.3) * font.size
    return canvas.centred(CROP / 2, baseline, title, font, dark), baseline + 0.5 * font.size


def paint_bars(random: Random, count: int, below: Colour) -> Sequence[str]:
    """One colour for all bars, or one each, that stands out."""
    fit = [name for name, colour in COLOURS.items() if abs(luminance(colour) - luminance(below)) > 35]
    one = random.choice(fit)
    return [one] * count if random.random() < 0.6 else [random.choice(fit) for _ in range(count)]


def behind(random: Random) -> Colour:
    """What a chart is drawn on: white mostly."""
    return WHITE if random.random() < 0.6 else ground(random)


def text_colour(below: Colour) -> Colour:
    """Of a chart's texts and lines."""
    return (20, 20, 20) if luminance(below) > 128 else (245, 245, 245)
