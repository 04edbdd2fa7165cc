"""`phi3v info`: what a model folder holds, or what an image costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .columns import print_columns
from .image_args import image_arguments
from .notices import describe_model, say
from .options import background_option

if TYPE_CHECKING:
    from phi3v.images.cropped import NumCrops

_PUBLISHED_KV = {"fp16": 393_216, "fp32": 786_432}
"""KV bytes per token of the 4.2 B model: 32 layers x 2 x 3072 values, in fp16 on a GPU and in fp32 on the CPU."""


@click.command(short_help="Describe a model, or what an image costs.")
@click.argument("target", metavar="MODEL|IMAGE")
@click.option("--model", metavar="NAME|FOLDER", help="Count KV memory for this model. Default: for the 4.2 B model.")
@background_option
@click.option("--matrices", is_flag=True, help="Of a model with int8 prefill: how each matrix is multiplied there.")
def info(target: str, model: str | None, background: str, matrices: bool) -> None:
    """Describe a model (a folder or a pulled one's name), or what an image costs in crops, tokens and KV memory.

    \b
    phi3v info chart.png
    phi3v info nano
    phi3v info my-model --matrices
    """
    from phi3v.models.local import find_local, is_builtin, resolve_model

    if Path(target).is_dir() or (not Path(target).exists() and (find_local(target) or is_builtin(target))):
        _describe_model(resolve_model(target), matrices)
    else:
        _describe_image(target, model, background)


def _describe_model(folder: Path, matrices: bool) -> None:
    from phi3v.models.files import name_in_errors
    from phi3v.models.folder import ModelDir
    from phi3v.models.manifest import MANIFEST, Manifest

    model = ModelDir.open(folder)
    plans = (Manifest.find(folder) or Manifest()).extra.get("prefill") or {}
    with name_in_errors(folder / MANIFEST):  # before anything is printed
        prefill, table = _summarise_prefill(plans, bool(model.block_graphs)), _list_matrices(plans)
    switch = model.original_context_length
    click.echo(f"{model.path}: {model.precision or 'published build'}, built for {model.built_for}")
    for line in describe_model(model):
        click.echo(line)
    click.echo(f"devices    {', '.join(model.devices)}")
    for part, size in model.graphs.items():
        click.echo(f"{part:10} {size / 1e6:10.1f} MB")
    click.echo(f"prefill    {prefill}")
    click.echo(f"context    {model.context_length} tokens" + (f", LongRoPE switch at {switch}" if switch else ""))
    click.echo(f"KV cache   {model.kv_bytes_per_token} bytes per token")
    click.echo(f"num_crops  {model.num_crops} by default")
    if matrices and plans:
        print_columns(table)


def _summarise_prefill(plans: Mapping[str, Mapping[str, Any]], blocks_too: bool) -> str:
    """Say how prompts are multiplied; `plans` is the manifest's "prefill", `blocks_too`: there are other weights."""
    if not plans:
        return "in the same weights as single tokens"
    rows = [plan for plan in plans.values() if plan["rows"]]
    beside = sum(bool(plan["outliers"]) for plan in rows)
    of = f"{len(rows)} of {len(plans)} matrices" + ("" if blocks_too else " (single tokens too)")
    return f"row-wise int8 for {of}, {beside} of them with outlier columns in float32"


def _list_matrices(plans: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row of titles, then one a matrix."""
    rows = [["matrix", "prefill", "outliers", "loss", "in blocks", "outlier ratio"]]
    for name, plan in plans.items():
        short = name.replace("vision_embed_tokens.img_processor.vision_model.encoder", "vision").removeprefix("model.")
        values = (len(plan["outliers"]), plan["loss"], plan["loss_in_blocks"], plan["outlier_ratio"])
        rows.append([short, "int8" if plan["rows"] else "blocks", *map(str, values)])
    return rows


def _describe_image(target: str, model: str | None, background: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from phi3v import hd
    from phi3v.images.load import read_image
    from phi3v.models.folder import ModelDir
    from phi3v.models.local import resolve_model

    image = read_image(image_arguments((target,))[0], background)
    if image.how:
        click.echo(f"read as    {image.how}")
    for note in image.notes:
        say(note)
    size = image.image.size
    kv = {"KV": ModelDir.open(resolve_model(model)).kv_bytes_per_token} if model else _PUBLISHED_KV
    table = Table("num_crops", "grid", "crops", "tokens", *(f"{name} MiB" for name in kv), box=None)
    choices: tuple[NumCrops, ...] = (1, 4, 9, 16, "auto")
    for num_crops in choices:
        plan = hd.plan(*size, num_crops)
        memory = [f"{plan.image_tokens * bytes_ / (1 << 20):.1f}" for bytes_ in kv.values()]
        grid = f"{plan.rows} x {plan.columns}"
        table.add_row(str(num_crops), grid, str(plan.crops), str(plan.image_tokens), *memory)
    click.echo(f"{target}: {size[0]} x {size[1]} pixels")
    Console().print(table)
