"""Charts drawn by matplotlib: another hand than ours, so that charts are learned and not our drawing of them.

Training draws them in styles of its own making. matplotlib's default style is none of these: it is what charts by
another hand are scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from ...errors import MissingDependencyError
from ...hd import CROP
from ...machine.install import install_line
from .canvas import BAR, COLOURS, WHITE, Canvas, Colour, ground, luminance
from .chart_data import Data, chart_data
from .chart_frame import Extras, behind, fitting_data, paint_bars, text_colour
from .chart_questions import Chart, Places, ask
from .fonts import FACES, Font, font_path
from .layout import SMALLEST_CHART, SMALLEST_CHART_TRAINED
from .samples import Sample

LYING, COLUMNS, LINE = "lying bars", "columns", "line"
KINDS = (LYING, COLUMNS, LINE)
_DPI = 100.0
_POINT = 72 / _DPI
"""Points of a pixel of the 336 that the model sees."""

_FAMILIES = {
    FACES[0]: {"font.family": "DejaVu Sans"},
    FACES[1]: {"font.family": "DejaVu Sans", "font.weight": "bold", "axes.labelweight": "bold"},
    FACES[2]: {"font.family": "Liberation Sans"},
    FACES[3]: {"font.family": "Liberation Sans", "font.weight": "bold", "axes.labelweight": "bold"},
}


@dataclass(frozen=True, slots=True)
class Style:
    """How matplotlib draws a chart; sizes in pixels of the 336, `rc` in matplotlib's own words.

    `paint` are names of colours, one for every bar; without them matplotlib chooses. `room` is the share of the values'
    axis that is left free behind the longest bar.
    """

    text: float
    title: float
    height: int = CROP
    scale: float = 1.0
    face: str = FACES[0]
    title_face: str = FACES[0]
    paint: Sequence[str] = ()
    thickness: float = 0.8
    inside: bool = False
    room: float = 0.15
    extras: Extras = field(default_factory=lambda: Extras(True, False, False, None, None, None))
    rc: Mapping[str, Any] = field(default_factory=dict)


def plot_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart in matplotlib's default style, of any kind, with questions about it; its print is in the world."""
    kind = random.choice(KINDS)
    extras = Extras(True, False, False, None, None, None)
    data = _data(random, kind, extras, SMALLEST_CHART, held_out, 0.0)
    text = _text_size(data, kind, extras, random.uniform(SMALLEST_CHART, 20), FACES[0], SMALLEST_CHART)
    style = Style(text, 1.2 * text, random.choice((CROP, 280, 252)), random.choice((1.0, 2.0)), extras=extras)
    while Font(FACES[0], style.title).width(data.title) > 0.8 * CROP:
        data = _data(random, kind, extras, SMALLEST_CHART, held_out, 0.0)
    return ask(random, draw_plot(data, kind, style), "plot")


def wider_plot(random: Random, held_out: bool = False) -> Sample:
    """One to train on, in any style but the default one, with smaller print and misspelt words."""
    kind, extras = random.choice((*KINDS, COLUMNS)), Extras.draw(random, held_out)
    smallest = SMALLEST_CHART_TRAINED
    data = _data(random, kind, extras, smallest, held_out, 0.25)
    return ask(random, draw_plot(data, kind, _style(random, data, kind, extras, smallest)), "plot")


def draw_plot(data: Data, kind: str, style: Style) -> Chart:
    """The chart as matplotlib draws it, with the places of its texts."""
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_rc(style)):
        size = (CROP / _DPI, style.height / _DPI)
        figure = Figure(size, dpi=_DPI * style.scale, layout=None if style.rc else "constrained")
        page: Any = FigureCanvasAgg(figure)
        axes = figure.add_axes(_box(data, kind, style)) if style.rc else figure.add_subplot()
        drawn, values = _draw(axes, data, kind, style)
        heading = axes.set_title(data.title)
        page.draw()
        labels = (axes.get_yticklabels() if kind == LYING else axes.get_xticklabels())[: len(data.labels)]
        image = Image.fromarray(np.asarray(page.buffer_rgba())[..., :3])
        reader = _Reader(Canvas.over(image), page.get_renderer(), style.scale, image.height)
        places = Places(reader.places(heading, data.title, Font(style.title_face, style.title)), 0.0)
        font = Font(style.face, style.text)
        places.labels = [reader.places(t, said, font) for t, said in zip(labels, data.labels, strict=True)]
        places.values = [reader.places(t, said, font) for t, said in zip(values, data.values, strict=True)]
        for index, bar in enumerate(drawn):
            reader.mark(bar, style.paint[index] if style.paint else "blue")
    return Chart(reader.canvas.finish(), data, places, "line" if kind == LINE else "bar")


@cache
def _matplotlib() -> Any:
    """matplotlib, which knows nano's fonts even where it listed a machine's fonts before they were installed."""
    try:
        import matplotlib
        from matplotlib.font_manager import fontManager
    except ImportError as exc:
        raise MissingDependencyError(
            f"nano's training draws charts with matplotlib, which cannot be imported ({exc}); "
            f"run: {install_line('bench')}"
        ) from exc
    for face in FACES:
        fontManager.addfont(font_path(face))
    return matplotlib


@dataclass(frozen=True, slots=True)
class _Reader:
    """Finds what matplotlib has drawn, and labels it on a canvas."""

    canvas: Canvas
    renderer: Any
    scale: float
    high: int

    def places(self, artist: Any, text: str, font: Font) -> list[tuple[int, int]]:
        """Cells of a text's characters. What is not text any more, a hidden one say, would be a mistake here."""
        assert artist.get_text() == text
        box = artist.get_window_extent(self.renderer)
        width, _, descent = self.renderer.get_text_width_height_descent(text, artist.get_fontproperties(), False)
        x, baseline = (box.x0 + box.x1 - width) / 2, self.high - box.y0 - descent
        stretched = Font(font.face, font.size * width / self.scale / font.width(text))
        left, top = self.canvas.left, self.canvas.top
        return self.canvas.note(left + x / self.scale, top + baseline / self.scale, text, stretched)

    def mark(self, bar: Any, colour: str) -> None:
        """Label the patches of a bar."""
        box = bar.get_window_extent(self.renderer)
        left, right = (self.canvas.left + x / self.scale for x in (box.x0, box.x1))
        top, bottom = (self.canvas.top + (self.high - y) / self.scale for y in (box.y1, box.y0))
        self.canvas.mark((left, top, right, bottom), BAR, colour)


def _rc(style: Style) -> dict[str, Any]:
    return {"font.size": style.text * _POINT, "axes.titlesize": style.title * _POINT, **style.rc}


def _draw(axes: Any, data: Data, kind: str, style: Style) -> tuple[Sequence[Any], Sequence[Any]]:
    """Bars or a line; gives the bars and the texts of the values."""
    numbers, extras = [float(value) for value in data.values], style.extras
    colours: Any = [_shown(COLOURS[name]) for name in style.paint] or None
    if kind == LINE:
        bars: Any = ()
        axes.plot(data.labels, numbers, color=colours[0] if colours else None, marker="o", label=extras.legend)
        axes.margins(x=0.5 / len(numbers), y=style.room)
        texts = [
            axes.annotate(value, (at, number), (0, 5), textcoords="offset points", ha="center")
            for at, (value, number) in enumerate(zip(data.values, numbers, strict=True))
        ]
    elif kind == LYING:
        bars = axes.barh(data.labels, numbers, style.thickness, color=colours, label=extras.legend)
        axes.invert_yaxis()
        axes.margins(x=style.room)
    else:
        bars = axes.bar(data.labels, numbers, style.thickness, color=colours, label=extras.legend)
        axes.margins(y=style.room)
    if kind != LINE:
        texts = axes.bar_label(bars, data.values, label_type="center" if style.inside else "edge", padding=2)
        for text, name in zip(texts, style.paint if style.inside else (), strict=False):
            text.set_color(_shown((15, 15, 15) if luminance(COLOURS[name]) > 128 else WHITE))
    _add_extras(axes, kind, extras)
    return bars, texts


def _add_extras(axes: Any, kind: str, extras: Extras) -> None:
    if not extras.ticks:
        (axes.set_xticks if kind == LYING else axes.set_yticks)([])
    if extras.x_title:
        axes.set_xlabel(extras.x_title)
    if extras.y_title:
        axes.set_ylabel(extras.y_title)
    if extras.legend:
        axes.legend()


def _data(random: Random, kind: str, extras: Extras, smallest: float, held_out: bool, misspelling: float) -> Data:
    """What fits: labels side by side below columns, a title over the axes."""
    while True:
        if kind == LYING:
            data = chart_data(random, held_out, misspelling=misspelling)
        else:
            data = fitting_data(random, extras, smallest + 1, held_out, misspelling)
        if Font(FACES[1], smallest).width(data.title) <= 0.8 * CROP:
            return data


def _text_size(data: Data, kind: str, extras: Extras, wanted: float, face: str, smallest: float) -> float:
    """As large as wanted, as far as the labels' room allows."""
    one = Font(face, 1.0)
    widest = max(map(one.width, data.labels))
    if kind == LYING:
        return max(smallest, min(wanted, 120 / widest, 190 / len(data.labels)))
    widest = max(widest, *map(one.width, data.values))
    room = CROP - 16 - (3.2 * wanted if extras.ticks else 0) - (1.3 * wanted if extras.y_title else 0)
    return max(smallest, min(wanted, 0.93 * room / len(data.labels) / widest))


def _box(data: Data, kind: str, style: Style) -> tuple[float, float, float, float]:
    """Where the axes are, as shares of the figure: what is around them has just the room it needs."""
    extras, size, font = style.extras, style.text, Font(style.face, style.text)
    beside = max(map(font.width, data.labels)) if kind == LYING else 2.6 * size * extras.ticks
    left = 10 + beside + 1.4 * size * bool(extras.y_title)
    below = 8 + size * (extras.ticks or kind != LYING) + 1.4 * size * bool(extras.x_title)
    above = 10 + 1.1 * style.title
    wide, high = CROP - left - 10, style.height - above - below
    return left / CROP, below / style.height, wide / CROP, high / style.height


def _style(random: Random, data: Data, kind: str, extras: Extras, smallest: float) -> Style:
    below, face = behind(random), random.choice(FACES)
    inner = below if random.random() < 0.7 else ground(random)
    if abs(luminance(inner) - luminance(below)) > 90:
        inner = below
    dark, title_face = text_colour(below), random.choice((face, face, FACES[0], FACES[1]))
    text = _text_size(data, kind, extras, random.uniform(smallest, 22), face, smallest)
    title = max(smallest, min(random.uniform(1.0, 1.5) * text, 0.8 * CROP / Font(title_face, 1.0).width(data.title)))
    spines = {f"axes.spines.{side}": random.random() < 0.7 for side in ("top", "right", "left", "bottom")}
    inside = kind != LINE and random.random() < 0.2
    shown = _shown(dark)
    rc = {
        **_FAMILIES[face],
        **spines,
        "axes.titleweight": "bold" if title_face in FACES[1::2] else "normal",
        "figure.facecolor": _shown(below),
        "axes.facecolor": _shown(inner),
        "axes.grid": extras.grid,
        "axes.grid.axis": "x" if kind == LYING else random.choice(("y", "both")),
        "axes.axisbelow": True,
        "grid.alpha": random.uniform(0.3, 1.0),
        "grid.linestyle": random.choice(("-", "--", ":")),
        "axes.titlelocation": "left" if random.random() < 0.15 else "center",
        "lines.linewidth": random.uniform(1.0, 3.0),
        "legend.fontsize": 0.8 * text * _POINT,
        "xtick.direction": random.choice(("in", "out")),
        "legend.loc": random.choice(("upper left", "upper right")),
        **{f"{part}.color": shown for part in ("text", "xtick", "ytick")},
        "axes.edgecolor": shown,
        "axes.labelcolor": shown,
    }
    height, scale = random.choice((CROP, CROP, 300, 270, 252)), random.choice((1.0, 1.0, 1.0, 1.5, 2.0))
    paint, room = paint_bars(random, len(data.labels), inner), random.uniform(0.12, 0.3)
    thickness = random.choice((random.uniform(0.45, 0.75), random.uniform(0.85, 0.95)))
    return Style(text, title, height, scale, face, title_face, paint, thickness, inside, room, extras, rc)


def _shown(colour: Colour) -> tuple[float, float, float]:
    """As matplotlib writes it."""
    red, green, blue = (part / 255 for part in colour)
    return red, green, blue
