"""Charts of every kind, by our hand and by matplotlib's: a question has one answer, which stands in the picture."""

import json
from random import Random

import numpy as np
import pytest

from phi3v.export.nano.canvas import Picture
from phi3v.export.nano.chart_data import Data
from phi3v.export.nano.chart_frame import Extras
from phi3v.export.nano.chart_jobs import one_bar_sample
from phi3v.export.nano.chart_questions import Chart, ask_count, ask_in_format, ask_lowest
from phi3v.export.nano.charts import lying_chart
from phi3v.export.nano.columns import column_chart, line_chart, wider_column, wider_line
from phi3v.export.nano.fonts import FACES, Font
from phi3v.export.nano.layout import SMALLEST_CHART
from phi3v.export.nano.plots import KINDS, Style, draw_plot, plot_sample, wider_plot
from phi3v.export.nano.samples import Make
from phi3v.export.nano.vocabulary import Copied, vocabulary

pytestmark = pytest.mark.torch

DATA = Data("Acme Sales 2020", ("2017", "2018", "2019"), ("12", "40", "7.5"))
NO_EXTRAS = Extras(True, False, False, None, None, None)


def copied(turn_answer: tuple[str | Copied, ...]) -> list[Copied]:
    return [part for part in turn_answer if isinstance(part, Copied)]


def has_ink(picture: Picture, x: float, y: float) -> bool:
    """Whether something stands in the few pixels around a point."""
    around = picture.pixels[round(y) - 5 : round(y) + 6, round(x) - 4 : round(x) + 5]
    return int(around.max()) - int(around.min()) > 60


@pytest.mark.parametrize("make", [wider_column, wider_line, plot_sample, wider_plot])
def test_every_character_stands_where_it_is_labelled(make: Make) -> None:
    for seed in range(6):
        picture = make(Random(seed), False).pictures[0]
        inside = [(x, y) for x, y, _ in picture.characters if 6 < x < 330 and 6 < y < 330]
        assert np.mean([has_ink(picture, x, y) for x, y in inside]) > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_matplotlibs_texts_are_labelled_in_reading_order(kind: str) -> None:
    chart = draw_plot(DATA, kind, Style(18, 22, extras=NO_EXTRAS))
    assert (chart.title.text, [chart.label(n).text for n in range(3)]) == (DATA.title, list(DATA.labels))
    assert [row for row, _ in chart.places.title] == [chart.places.title[0][0]] * len(DATA.title)
    columns = [column for _, column in chart.places.title]
    assert columns == sorted(columns)
    rows, across = zip(*(chart.places.labels[n][0] for n in range(3)), strict=True)
    assert (rows if kind == "lying bars" else across) == tuple(sorted(rows if kind == "lying bars" else across))


def test_matplotlibs_bars_are_labelled_as_bars() -> None:
    chart = draw_plot(DATA, "columns", Style(18, 22, extras=NO_EXTRAS))
    heights = (chart.picture.objects > 0).sum(axis=0)
    middles = [round(np.mean([column for _, column in places]) * 2) for places in chart.places.labels]
    assert heights[middles[1]] > heights[middles[0]] > heights[middles[2]] >= 1


def test_training_never_draws_in_matplotlibs_default_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    default = (31, 119, 180)
    for seed in range(30):
        pixels = wider_plot(Random(seed), False).pictures[0].pixels
        assert (pixels == default).all(axis=-1).sum() < 200
    assert (plot_sample(Random(1), False).pictures[0].pixels == default).all(axis=-1).sum() > 200


def test_matplotlibs_print_is_in_the_world() -> None:
    smallest = Font(FACES[0], SMALLEST_CHART).width("0")
    apart = [distance for seed in range(12) for distance in wide_of(plot_sample(Random(seed), False).pictures[0])]
    assert len(apart) > 20
    assert min(apart) > 0.93 * smallest


def wide_of(picture: Picture) -> list[float]:
    """Distances between digits that follow each other in a text."""
    pairs = zip(picture.characters, picture.characters[1:], strict=False)
    return [b[0] - a[0] for a, b in pairs if a[1] == b[1] and (a[2] + b[2]).isdigit() and 0 < b[0] - a[0] < 20]


@pytest.mark.parametrize("make", [lying_chart, column_chart, line_chart])
def test_what_is_asked_of_a_chart_has_one_answer(make: type[Chart]) -> None:
    for seed in range(10):
        chart = make(Random(seed))  # type: ignore[call-arg, arg-type]
        numbers = [float(value) for value in chart.data.values]
        assert len(set(chart.data.labels)) == len(numbers)
        assert numbers[chart.data.highest] == max(numbers)
        for turn in ask_lowest(Random(0), chart, "lowest"):
            value, label = copied(turn.answer)
            assert (float(value.text), label.text) == (min(numbers), chart.data.labels[numbers.index(min(numbers))])
        assert f"There are {len(numbers)} " in ask_count(Random(0), chart, "count").text


def test_the_lowest_bar_is_asked_for_only_where_it_is_clearly_that() -> None:
    assert Data("A", ("x", "y", "z"), ("10", "10.3", "100")).lowest is None
    assert Data("A", ("x", "y", "z"), ("10", "40", "100")).lowest == 0


def test_one_bar_questions_ask_of_any_bar() -> None:
    turns = [one_bar_sample(Random(seed), False).turns[0] for seed in range(60)]
    starts = {turn.text.split(" ")[1] for turn in turns}
    assert starts == {"value", "lowest", "are"}
    assert all(vocabulary().text(vocabulary().answer(turn.answer).ids[:-1]) == turn.text for turn in turns)


def test_a_charts_line_of_json_names_its_highest_bar() -> None:
    for seed in range(12):
        chart = column_chart(Random(seed))
        told = json.loads(ask_in_format(Random(seed), chart, "format").text)
        high = chart.data.highest
        true = {"title": chart.data.title, "highest": chart.data.labels[high], "value": float(chart.data.values[high])}
        assert told.items() <= true.items()
