"""`phi3v bench parity`: a model folder against the PyTorch reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .options import path_type


@click.command(short_help="Compare a model with the PyTorch reference.")
@click.argument("checkpoint", type=path_type)
@click.argument("model", type=path_type)
@click.option("--num-crops", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--image", "images", type=path_type, multiple=True, help="Default: one that is made for the purpose.")
@click.option("--picture", "pictures", type=path_type, multiple=True, hidden=True)  # what --image was called before
@click.option("--prompt", default="What is shown in this image?", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def parity(
    checkpoint: Path,
    model: Path,
    num_crops: int,
    new_tokens: int,
    images: tuple[Path, ...],
    pictures: tuple[Path, ...],
    prompt: str,
    as_json: bool,
) -> None:
    """Compare MODEL with the PyTorch reference on the CHECKPOINT it was built from: ids, pixels, logits, tokens."""
    import json

    from phi3v.bench.extras import require_extra

    require_extra("export", "torch", "transformers")
    from phi3v.bench.cases import make_jpeg
    from phi3v.bench.parity import measure_parity
    from phi3v.images.load import load_image

    shown = [load_image(image) for image in images + pictures or (make_jpeg(640, 400),)]
    found = asdict(measure_parity(checkpoint, model, prompt, shown, num_crops=num_crops, new_tokens=new_tokens))
    click.echo(
        json.dumps(found) if as_json else "\n".join(f"{name:18} {_show(value)}" for name, value in found.items())
    )


def _show(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
