"""`phi3v bench study nano-settings`: what quantisation costs nano in right answers."""

from __future__ import annotations

from pathlib import Path

import click

from .options import existing_path_type, path_type, say


@click.command(short_help="Compare quantisations by nano's right answers.")
@click.argument("state", type=existing_path_type)
@click.argument("out", type=path_type)
@click.option("--count", type=click.IntRange(min=1), default=500, show_default=True, help="Images per job.")
# The same jobs as in phi3v.export.nano.card, which takes numpy to import; --help must not.
@click.option(
    "--job",
    "jobs",
    multiple=True,
    default=("cover",),
    show_default=True,
    type=click.Choice(["cover", "chart", "scene pair"]),
)
@click.option("--only", multiple=True, metavar="SETTING", help="Only these settings.")
@click.option("--num-crops", type=click.IntRange(1, 16), help="Default: the folder's own, 1.")
def nano_settings(
    state: Path, out: Path, count: int, jobs: tuple[str, ...], only: tuple[str, ...], num_crops: int | None
) -> None:
    """Build nano from STATE in every setting below OUT, and print how many answers of each are right.

    \b
    phi3v bench study nano-settings nano.pt results
    """
    from phi3v.bench.extras import require_extra

    require_extra("export", "torch", "transformers")
    from phi3v.bench.studies.nano_settings import measure

    click.echo(measure(state, out, count=count, jobs=jobs, only=only, num_crops=num_crops, say=say))
