"""`phi3v export`: a Hugging Face checkpoint folder -> a model folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phi3v.export.progress import Progress


@click.command()
@click.argument("checkpoint")
@click.argument("out")
@click.option("--precision", type=click.Choice(["int4", "fp16", "fp32"]), default="int4", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Built for.")
@click.option("--block-size", type=int, default=32, show_default=True, help="Weights that share an int4 scale.")
@click.option("--overwrite", is_flag=True, help="Replace OUT when the build is complete.")
def export(checkpoint: str, out: str, precision: str, device: str, block_size: int, overwrite: bool) -> None:
    """Build the model folder OUT from a Hugging Face CHECKPOINT folder of Phi-3-vision (safetensors).

    Layer by layer, in under 1 GB of memory; an interrupted build leaves nothing behind that loads.
    """
    from phi3v.export.build import export_model

    with progress_bar() as progress:
        export_model(
            checkpoint,
            out,
            precision=precision,
            device=device,
            block_size=block_size,
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(out)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar with rate and ETA on stderr, driven by (stage, done bytes, total bytes)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:10}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("export", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)
