"""`phi3v bench openvino-folder`: what OpenVINO GenAI is measured on."""

from __future__ import annotations

from pathlib import Path

import click

from .options import existing_path_type, path_type


@click.command(short_help="Convert a checkpoint for OpenVINO GenAI.")
@click.argument("checkpoint", type=existing_path_type)
@click.argument("out", type=path_type)
# The same numbers as in phi3v.bench.openvino.folder, which takes torch to import; --help must not.
@click.option("--bits", type=click.Choice(["4", "8", "32"]), default="4", show_default=True)
@click.option("--group-size", type=click.IntRange(min=1), default=128, show_default=True, help="With 4 bits.")
@click.option("--num-crops", type=click.IntRange(min=1), help="Default: the checkpoint's own.")
def openvino_folder(checkpoint: Path, out: Path, bits: str, group_size: int, num_crops: int | None) -> None:
    """Convert CHECKPOINT to OUT, a folder for `phi3v bench run openvino=OUT`.

    \b
    phi3v bench openvino-folder Phi-3-vision-128k-instruct openvino-16
    """
    from phi3v.bench.extras import require_extra

    require_extra("bench-openvino", "torch", "transformers")
    from phi3v.bench.openvino.folder import write_folder

    click.echo(str(write_folder(checkpoint, out, bits=int(bits), group_size=group_size, num_crops=num_crops)))
