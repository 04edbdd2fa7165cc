"""`phi3v bench cuda-table`: everything the CUDA table holds, in one go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import click

from .options import path_type, rounds_option, say


@click.command(short_help="Measure everything the CUDA table holds.")
@click.argument("out", type=path_type)
@click.option("--models", type=path_type, help="Where the models are or will be written. Default: OUT/models.")
@click.option("--size", type=click.Choice(["full", "tiny"]), default="full", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option(
    "--crops",
    type=click.IntRange(1, 16),
    multiple=True,
    default=[1, 4, 16],
    show_default=True,
    help="Crops of the image; may be repeated, a case each.",
)
@click.option("--new-tokens", type=click.IntRange(min=2), default=256, show_default=True)
@rounds_option(5)
@click.option("--minutes", type=click.FloatRange(min=0), help="Begin no answer after so many minutes of measuring.")
@click.option(
    "--step",
    type=click.Choice(["all", "build", "measure"]),
    default="all",
    show_default=True,
    help="Only make the models, or only measure those that are there.",
)
@click.option(
    "--keep", is_flag=True, help="Keep the models (20 GB at full size). Models that were there before are always kept."
)
def cuda_table(
    out: Path,
    models: Path | None,
    size: str,
    device: Literal["cpu", "cuda"],
    crops: tuple[int, ...],
    new_tokens: int,
    rounds: int,
    minutes: float | None,
    step: Literal["all", "build", "measure"],
    keep: bool,
) -> None:
    """Make the models, measure everything the CUDA table holds, and write OUT/record.json, report.md and report.html.

    The record is written after every answer. A subject that fails is noted in it, and the others go on.

    --device cpu --size tiny tries the same without a GPU.

    \b
    phi3v bench cuda-table results --minutes 9
    """
    from phi3v.bench.cuda_table import write_table

    write_table(
        out,
        step=step,
        models=models,
        size=size,
        device=device,
        crops=crops,
        new_tokens=new_tokens,
        rounds=rounds,
        minutes=math.inf if minutes is None else minutes,
        keep=keep,
        say=say,
    )
    if step != "build":
        click.echo((out / "report.md").read_text(encoding="utf-8"))
