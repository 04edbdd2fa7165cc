"""`phi3v bench cuda-table`: everything the CUDA table holds, in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from .options import path_type, rounds_option, say


@click.command(short_help="Measure everything the CUDA table holds.")
@click.argument("out", type=path_type)
@click.option("--models", type=path_type, help="Where the models are or will be written. Default: OUT/models.")
@click.option("--size", type=click.Choice(["full", "tiny"]), default="full", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--new-tokens", type=click.IntRange(min=2), default=256, show_default=True)
@rounds_option(5)
@click.option(
    "--keep", is_flag=True, help="Keep the models (20 GB at full size). Models that were there before are always kept."
)
def cuda_table(
    out: Path, models: Path | None, size: str, device: Literal["cpu", "cuda"], new_tokens: int, rounds: int, keep: bool
) -> None:
    """Make the models, measure everything the CUDA table holds, and write OUT/record.json, report.md and report.html.

    --device cpu --size tiny tries the same without a GPU.
    """
    from phi3v.bench.cuda_table import write_table
    from phi3v.bench.report import render_markdown

    record = write_table(
        out, models=models, size=size, device=device, new_tokens=new_tokens, rounds=rounds, keep=keep, say=say
    )
    click.echo(render_markdown(record))
