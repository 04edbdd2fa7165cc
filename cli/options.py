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
# The same lists as in phi3v.export.precision, which takes numpy to import; --help must not.
build_device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Built for."
)
precision_option = click.option(
    "--precision", type=click.Choice(["int4", "fp16", "fp32"]), default="int4", show_default=True
)
block_size_option = click.option(
    "--block-size",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    help="Weights that share an int4 scale. Default: 128 for the CPU, 32 for a GPU.",
)
num_crops_option = click.option(
    "--num-crops",
    type=click.IntRange(1, 16),
    help="Most 336-pixel crops a picture is cut into: more detail, more tokens. Default: the model folder's.",
)
