"""The pictures in examples/, like those of the reference document: `python -m phi3v.export.nano.examples FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import click

from .chart_data import Data
from .charts import draw_chart
from .covers import draw_cover
from .scenes import Scene, draw_scene


@dataclass(frozen=True, slots=True)
class Example:
    """A question about files of examples/, and the true answer; `job` is the one of `evaluate.JOBS` it belongs to."""

    job: str
    question: str
    files: tuple[str, ...]
    answer: str


EXAMPLES = (
    Example(
        "cover",
        "Help me get the title and author information of this book?",
        ("cover.png",),
        'The title of the book is "ALONE" and the author is Morgan Maxwell.',
    ),
    Example("cover", "What is the title?", ("cover.png",), 'The title is "ALONE".'),
    Example("cover", "Who is the author?", ("cover.png",), "The author is Morgan Maxwell."),
    Example(
        "chart",
        "Could you please introduce this stock to me?",
        ("chart.png",),
        'This bar chart is titled "Nvidia Revenue". The highest value is 47.5, reached by FY2024.',
    ),
    Example(
        "scene pair",
        "What is difference in this two images?",
        ("before.png", "after.webp"),
        "The first image shows three red circles. The second image shows three blue circles. The color is different.",
    ),
)

_YEARS = tuple(f"FY{year}" for year in range(2017, 2025))
_BILLIONS = ("0.8", "1.9", "2.9", "3.0", "6.7", "10.6", "15.0", "47.5")
"""Nvidia's data-centre revenue in billions of dollars, as the company reported it."""


def draw(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    # 24: as it was drawn first, so that the picture in examples/ stays.
    cover = draw_cover("ALONE", "Morgan Maxwell", _COVER_STYLE, smallest=24).picture
    chart, _ = draw_chart(Random(_CHART_STYLE), Data("Nvidia Revenue", _YEARS, _BILLIONS))
    before, after = (draw_scene(Scene(3, "circle", colour), _SCENE_STYLE)[0] for colour in ("red", "blue"))
    for picture, name in ((cover, "cover.png"), (chart, "chart.png"), (before, "before.png")):
        picture.original.save(folder / name, optimize=True)
    after.original.save(folder / "after.webp", lossless=True)


_COVER_STYLE, _CHART_STYLE, _SCENE_STYLE = 6, 13, 4


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Draw the example pictures into FOLDER."""
    draw(folder)


if __name__ == "__main__":
    main()
