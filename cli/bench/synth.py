"""`phi3v bench synth`: a model with random weights, to try and to measure on."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import build_device_option, precision_option, prefill_option
from ..progress import progress_bar
from .options import path_type


def _outliers_type(text: str) -> tuple[str, float]:
    """Parse PLACE:FACTOR; whether the place exists is checked before anything is written."""
    place, _, factor = text.partition(":")
    try:
        return place, float(factor)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not PLACE:FACTOR, such as norms:30") from None


@click.command(short_help="Make a model with random weights.")
@click.argument("out", type=path_type)
@click.option("--size", type=click.Choice(["tiny", "full"]), default="tiny", show_default=True)
@click.option("--layers", type=click.IntRange(min=1), help="Decoder layers. Default: 2 (tiny), 32 (full).")
@precision_option
@build_device_option
@prefill_option
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--outliers",
    type=_outliers_type,
    metavar="PLACE:FACTOR",
    multiple=True,
    help="Make a few channels larger, as trained models have them; may be repeated. PLACE is norms, projections (v and "
    "up) or tokens (embeddings of single tokens); norms:30 is an example.",
)
def synth(
    out: Path,
    size: str,
    layers: int | None,
    precision: str,
    device: str,
    prefill: str,
    seed: int,
    outliers: tuple[tuple[str, float], ...],
) -> None:
    """Write a checkpoint with random weights to OUT/checkpoint and export it to OUT/model.

    "full" has the real 4.2 B dimensions: its speed and memory are the real model's, its answers mean nothing.

    \b
    phi3v bench synth full --size full
    """
    from phi3v.export.build import export_model
    from phi3v.export.synthetic import full_dims, require_random_model, tiny_dims, write_random_checkpoint

    require_random_model(out / "model")
    dims = full_dims(layers=layers or 32) if size == "full" else tiny_dims(layers=layers or 2)
    checkpoint = write_random_checkpoint(out / "checkpoint", dims, seed, outliers=dict(outliers))
    with progress_bar() as progress:
        export_model(
            checkpoint,
            out / "model",
            precision=precision,
            device=device,
            prefill=prefill,
            overwrite=True,
            progress=progress,
        )
    click.echo("random weights: answers of this model mean nothing", err=True)
    click.echo(str(out / "model"))
