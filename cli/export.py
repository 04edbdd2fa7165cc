"""`phi3v export`: a Hugging Face checkpoint folder -> a model folder."""

from __future__ import annotations

import click

from .options import block_size_option, build_device_option, precision_option, prefill_option
from .progress import progress_bar


@click.command()
@click.argument("checkpoint")
@click.argument("out")
@precision_option
@build_device_option
@block_size_option
@prefill_option
@click.option("--overwrite", is_flag=True, help="If OUT is a model already, replace it once the build is complete.")
def export(
    checkpoint: str, out: str, precision: str, device: str, block_size: str | None, prefill: str, overwrite: bool
) -> None:
    """Build the model folder OUT from a Hugging Face CHECKPOINT folder of Phi-3-vision (safetensors).

    Works layer by layer in about 1 GB of memory. An interrupted build leaves nothing behind that would load.
    """
    from phi3v.export.build import export_model

    with progress_bar() as progress:
        export_model(
            checkpoint,
            out,
            precision=precision,
            device=device,
            block_size=int(block_size) if block_size else None,
            prefill=prefill,
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(out)
