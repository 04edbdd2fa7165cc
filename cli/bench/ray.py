"""`phi3v bench ray`: how `Phi3Vision` scales on Ray."""

from __future__ import annotations

from pathlib import Path

import click

from .options import record_option, say


@click.command("ray", short_help="Measure Ray workers on this machine.")
@click.argument("image", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--rows", type=click.IntRange(min=8), default=400, show_default=True, help="Images for each measurement.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--sleeping", multiple=True, type=click.IntRange(min=1), default=(1, 4, 16, 64), show_default=True, metavar="N",
    help="Workers that sleep in place of a model; may be repeated.",
)  # fmt: skip
@click.option("--sleep-s", type=click.FloatRange(min=0.001), default=0.1, show_default=True, help="For each row.")
@record_option
def ray_command(
    image: Path, rows: int, rounds: int, sleeping: tuple[int, ...], sleep_s: float, out: Path | None
) -> None:
    """Ask nano about variants of IMAGE on one Ray worker and on two, in turns, each on a core of its own.

    Then workers sleep in place of a model, which shows what a row costs beside it.

    \b
    phi3v bench ray examples/cover.png
    """
    from phi3v.bench.extras import require_extra
    from phi3v.bench.ray_scaling import describe, measure

    require_extra("ray", "ray", "pandas")
    record = measure(image, rows=rows, rounds=rounds, actors=list(sleeping), sleep_s=sleep_s, out=out, say=say)
    click.echo(describe(record))
