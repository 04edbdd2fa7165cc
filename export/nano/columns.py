"""Charts of columns and of one line, drawn here: labels below, a printed value at every column or point."""

from __future__ import annotations

from random import Random

from .canvas import BAR, COLOURS, WHITE, Colour, luminance
from .chart_data import Data
from .chart_frame import Extras, draw_frame, fitting_data, paint_bars
from .chart_questions import Chart, ask
from .layout import SMALLEST_CHART, SMALLEST_CHART_TRAINED
from .samples import Sample


def column_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart of columns with questions about it."""
    return ask(random, column_chart(random, held_out), "column")


def line_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart of one line with questions about it."""
    return ask(random, line_chart(random, held_out), "line chart")


def wider_column(random: Random, held_out: bool = False) -> Sample:
    """One to train on: smaller print, misspelt words."""
    return ask(random, column_chart(random, held_out, SMALLEST_CHART_TRAINED, 0.25), "column")


def wider_line(random: Random, held_out: bool = False) -> Sample:
    """One to train on: smaller print, misspelt words."""
    return ask(random, line_chart(random, held_out, SMALLEST_CHART_TRAINED, 0.25), "line chart")


def sharp_column(random: Random, held_out: bool = False) -> Sample:
    """One to train on whose print can be read in 2 x 2 crops and not in one."""
    return ask(random, column_chart(random, held_out, SMALLEST_CHART_TRAINED / 2, 0.25, zoom=2), "column")


def column_chart(
    random: Random, held_out: bool = False, smallest: float = SMALLEST_CHART, misspelling: float = 0.0, zoom: int = 1
) -> Chart:
    """Columns of any data."""
    extras = Extras.draw(random, held_out)
    data = fitting_data(random, extras, smallest, held_out, misspelling)
    return draw_columns(random, data, extras, smallest, zoom)


def line_chart(
    random: Random, held_out: bool = False, smallest: float = SMALLEST_CHART, misspelling: float = 0.0
) -> Chart:
    """A line through any data."""
    extras = Extras.draw(random, held_out)
    return draw_line(random, fitting_data(random, extras, smallest, held_out, misspelling), extras, smallest)


def draw_columns(random: Random, data: Data, extras: Extras, smallest: float = SMALLEST_CHART, zoom: int = 1) -> Chart:
    """Columns with their values above them or, in one chart of four, inside where they fit."""
    frame = draw_frame(random, data, extras, smallest, zoom)
    font, canvas = frame.font, frame.canvas
    thick, inside = frame.slot * random.uniform(0.5, 0.9), random.random() < 0.25
    largest, paint = max(map(float, data.values)), paint_bars(random, len(data.labels), frame.below)
    for index, value in enumerate(data.values):
        middle, height = frame.middle(index), max(2.0, (frame.bottom - frame.top) * float(value) / largest)
        top = frame.bottom - height
        box = (middle - thick / 2, top, middle + thick / 2, frame.bottom)
        canvas.rectangle(box, COLOURS[paint[index]])
        canvas.mark(box, BAR, paint[index])
        fits = inside and font.width(value) < thick and height > 1.5 * font.size
        fill = _upon(COLOURS[paint[index]]) if fits else frame.dark
        baseline = top + 1.1 * font.size if fits else top - 4
        frame.places.values.append(canvas.centred(middle, baseline, value, font, fill))
    return Chart(canvas.finish(), data, frame.places)


def draw_line(random: Random, data: Data, extras: Extras, smallest: float = SMALLEST_CHART) -> Chart:
    """A line with a value at every point, above it, or below where the line comes down from both sides."""
    frame = draw_frame(random, data, extras, smallest)
    font, canvas = frame.font, frame.canvas
    numbers = [float(value) for value in data.values]
    floor = 0.0 if random.random() < 0.5 else random.uniform(0.3, 0.95) * min(numbers)
    points = [
        (frame.middle(index), frame.bottom - 6 - (frame.bottom - 6 - frame.top) * (n - floor) / (max(numbers) - floor))
        for index, n in enumerate(numbers)
    ]
    colour = COLOURS[paint_bars(random, 1, frame.below)[0]]
    for shift in range(random.randint(1, 3)):
        canvas.line([(x, y + shift) for x, y in points], colour)
    radius = random.choice((0, 2, 3, 4))
    for index, (value, (x, y)) in enumerate(zip(data.values, points, strict=True)):
        if radius:
            canvas.ellipse((x - radius, y - radius + 1, x + radius, y + radius + 1), colour)
        below = _is_valley(numbers, index) and y + 1.4 * font.size < frame.bottom
        baseline = y + radius + 0.95 * font.size + 2 if below else y - radius - 4
        frame.places.values.append(canvas.centred(x, baseline, value, font, frame.dark))
    return Chart(canvas.finish(), data, frame.places, "line")


def _is_valley(numbers: list[float], index: int) -> bool:
    """Whether both neighbours are higher, of which an end has one."""
    return all(numbers[other] > numbers[index] for other in (index - 1, index + 1) if 0 <= other < len(numbers))


def _upon(colour: Colour) -> Colour:
    return (15, 15, 15) if luminance(colour) > 128 else WHITE
