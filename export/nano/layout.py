"""Setting text: blocks of lines, with the cell of every character of the text they show."""

from __future__ import annotations

from .canvas import Canvas, Colour, Place
from .fonts import Font

SMALLEST_TEXT = 20
"""In pixels of the 336 the model sees, in nano's world."""

SMALLEST_TRAINED = 18
"""What training goes down to, so that the smallest text of the world is not at the edge."""

SMALLEST_CHART, SMALLEST_CHART_TRAINED = 18, 16
"""The same for charts of columns and lines, whose labels stand side by side."""


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Break into lines of at most `width` pixels; a longer word gets a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def block(
    canvas: Canvas, middle: float, baseline: float, lines: list[str], font: Font, fill: Colour, pitch: float = 1.15
) -> list[Place]:
    """Centred lines; places of the characters of the lines joined by spaces (such a space stands at the line's end)."""
    places: list[Place] = []
    for number, line in enumerate(lines):
        if places:
            places.append(places[-1])
        places += canvas.centred(middle, baseline + number * pitch * font.size, line, font, fill)
    return places
