"""What charts of any kind are scored on beside their introduction: one bar, and answers in a format."""

from __future__ import annotations

from random import Random

from .chart_questions import Chart, ask_choice, ask_in_format, ask_one_bar
from .charts import lying_chart
from .columns import column_chart, line_chart
from .samples import Sample


def one_bar_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart and one question about a bar or point that need not be the highest."""
    return ask_one_bar(random, _any_chart(random, held_out), "one bar")


def chart_format_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart, and the JSON line that tells of it."""
    chart = _any_chart(random, held_out)
    return Sample((chart.picture,), [ask_in_format(random, chart, "chart format")])


def choice_sample(random: Random, held_out: bool = False) -> Sample:
    """A chart, and its highest bar as one of several choices."""
    chart = _any_chart(random, held_out)
    return Sample((chart.picture,), [ask_choice(random, chart, "choice")])


def _any_chart(random: Random, held_out: bool) -> Chart:
    return random.choice((lying_chart, column_chart, line_chart))(random, held_out)
