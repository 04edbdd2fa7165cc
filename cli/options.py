"""Options that several commands share, with one wording."""

from __future__ import annotations

import click

model_option = click.option(
    "--model",
    metavar="NAME|FOLDER",
    help="Pulled model (name or name:variant) or model folder. "
    "Default: $PHI3V_MODEL, else the best pulled one for this machine, else the built-in one.",
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run."
)
num_crops_option = click.option(
    "--num-crops",
    type=click.IntRange(1, 16),
    help="Most 336-pixel crops a picture is cut into: more detail, more tokens. Default: the model folder's.",
)
