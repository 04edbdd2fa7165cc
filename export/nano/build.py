"""From a saved training state to a model folder: `python -m phi3v.export.nano.build STATE FOLDER`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ..build import export_model
from ..precision import PRECISIONS
from .checkpoint import read_nano, write_checkpoint


def build(state: Path, folder: Path, precision: str = "fp32", overwrite: bool = False) -> Path:
    """The model folder of a training state, through the ordinary exporter."""
    with TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(read_nano(state), Path(scratch) / "nano")
        return export_model(checkpoint, folder, precision=precision, overwrite=overwrite)


@click.command()
@click.argument("state", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option("--overwrite", is_flag=True)
def main(state: Path, folder: Path, precision: str, overwrite: bool) -> None:
    """Write the model FOLDER of STATE, what training saved (.pt) or another model folder."""
    build(state, folder, precision, overwrite)


if __name__ == "__main__":
    main()
