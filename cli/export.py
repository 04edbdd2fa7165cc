"""`phi3v export`: a Hugging Face checkpoint folder -> a model folder."""

from __future__ import annotations

import click

from .progress import progress_bar


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
