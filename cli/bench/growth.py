"""`phi3v bench growth`: how time and memory grow with the prompt and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phi3v.types import MAX_BATCH_SIZE

from .options import path_type, record_option, rounds_option, say
from .terminal import print_markdown

if TYPE_CHECKING:
    from phi3v.genai.prefill import Prefill


def _point(text: str) -> tuple[int, int]:
    rows, _, tokens = text.partition("x")
    if not (rows.isdecimal() and tokens.isdecimal() and 1 <= int(rows) <= MAX_BATCH_SIZE):
        raise click.BadParameter(f"{text!r} is not ROWSxTOKENS, such as 1x2564 or 8x368; at most {MAX_BATCH_SIZE} rows")
    return int(rows), int(tokens)


@click.command(short_help="Measure how cost grows with the prompt.")
@click.argument("model", metavar="NAME|FOLDER")
@click.option(
    "--point",
    "points",
    type=_point,
    metavar="ROWSxTOKENS",
    multiple=True,
    default=["1x368", "1x812", "1x2564", "1x4090"],
    show_default=True,
    help="How many prompts at once, and tokens of each; may be repeated.",
)
@click.option(
    "--prefill",
    "prefills",
    type=click.Choice(["auto", "int8", "int4"]),
    multiple=True,
    default=["auto"],
    show_default=True,
    help="Which of the folder's weights prompts take; may be repeated.",
)
@click.option("--new-tokens", type=click.IntRange(min=2), default=16, show_default=True)
@rounds_option(1)
@click.option("--threads", type=click.IntRange(min=1))
@record_option
@click.option("--plot", type=path_type, help="Draw the curves here, as SVG.")
def growth(
    model: str,
    points: tuple[tuple[int, int], ...],
    prefills: tuple[Prefill, ...],
    new_tokens: int,
    rounds: int,
    threads: int | None,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Prefill text prompts of exact lengths on the CPU; print seconds to the first token, decode and peak memory.

    \b
    phi3v bench growth my-model --point 1x368 --point 8x368
    """
    from phi3v.bench.extras import require_extra
    from phi3v.bench.growth import draw, format_table, measure
    from phi3v.models.local import resolve_model

    if plot:
        require_extra("bench", "matplotlib")
    settings = {"prefills": prefills, "new_tokens": new_tokens, "rounds": rounds, "threads": threads}
    record = measure(resolve_model(model), points, **settings, out=out, say=say)  # type: ignore[arg-type]
    if plot:
        draw(record, plot)
    print_markdown(format_table(record))
