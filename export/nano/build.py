"""From a saved training state to a model folder: `python -m phi3v.export.nano.build STATE FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ..build import export_model
from ..precision import PRECISIONS
from .checkpoint import read_nano, write_checkpoint, write_weights
from .network import nano_dims


def build(state: Path, folder: Path, precision: str = "fp32", overwrite: bool = False) -> Path:
    """The model folder of a training state, through the ordinary exporter."""
    with TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(read_nano(state, nano_dims()), Path(scratch) / "nano")
        return export_model(checkpoint, folder, precision=precision, overwrite=overwrite)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m phi3v.export.nano.build", description=__doc__)
    parser.add_argument("state", type=Path, help="what training saved (.pt), or its weights (.safetensors)")
    parser.add_argument(
        "folder", type=Path, help="the model folder to write; NAME.safetensors keeps the weights for more training"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    if options.folder.suffix == ".safetensors":
        write_weights(options.state, options.folder)
        return
    build(options.state, options.folder, options.precision, options.overwrite)


if __name__ == "__main__":
    main()
