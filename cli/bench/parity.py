"""`phi3v bench parity`: a model folder against the PyTorch reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ..columns import print_columns
from .options import path_type


@click.command(short_help="Compare a model with the PyTorch reference.")
@click.argument("checkpoint", type=path_type)
@click.argument("model", type=path_type)
@click.option("--num-crops", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--image", "images", type=path_type, multiple=True, help="Default: one that is made for the purpose.")
@click.option("--picture", "pictures", type=path_type, multiple=True, hidden=True)  # what --image was called before
@click.option("--prompt", default="What is shown in this image?", show_default=True)
@click.option(
    "--matrices",
    is_flag=True,
    help="List what each quantised matrix loses by itself, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def parity(
    checkpoint: Path,
    model: Path,
    num_crops: int,
    new_tokens: int,
    images: tuple[Path, ...],
    pictures: tuple[Path, ...],
    prompt: str,
    matrices: bool,
    as_json: bool,
) -> None:
    """Compare MODEL with the PyTorch reference on the CHECKPOINT it was built from: ids, pixels, logits, tokens.

    \b
    phi3v bench parity Phi-3-vision-128k-instruct my-model --matrices
    """
    import json

    from phi3v.bench.extras import require_extra

    require_extra("export", "torch", "transformers")
    from phi3v.bench.cases import make_jpeg
    from phi3v.bench.matrix_loss import measure_matrices
    from phi3v.bench.parity import measure_parity
    from phi3v.images.load import load_image

    shown = [load_image(image) for image in images + pictures or (make_jpeg(640, 400),)]
    losses = [asdict(loss) for loss in measure_matrices(checkpoint, model, prompt, shown)] if matrices else []
    found = asdict(measure_parity(checkpoint, model, prompt, shown, num_crops=num_crops, new_tokens=new_tokens))
    if as_json:
        click.echo(json.dumps(found | ({"matrices": losses} if matrices else {})))
        return
    for name, value in found.items():
        click.echo(f"{name:18} {_show(value)}")
    if losses:
        click.echo("")
        print_columns([list(losses[0]), *([_show(value) for value in loss.values()] for loss in losses)])


def _show(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
