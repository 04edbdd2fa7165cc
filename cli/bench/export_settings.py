"""`phi3v bench study export-settings`: speed and loss of the decoder in each quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import case_option, existing_path_type, path_type, rounds_option, say

if TYPE_CHECKING:
    from phi3v.bench.cases import Case


@click.command(short_help="Compare quantisations by speed and loss.")
@click.argument("checkpoint", type=existing_path_type)
@click.argument("out", type=path_type)
@case_option("1344x1344:4:64")
@rounds_option(7)
def export_settings(checkpoint: Path, out: Path, case: Case, rounds: int) -> None:
    """Export CHECKPOINT in every quantisation, measure, and write OUT/record.json and OUT/table.md.

    The models go to OUT/models.

    \b
    phi3v bench study export-settings Phi-3-vision-128k-instruct results
    """
    from phi3v.bench.extras import require_extra

    require_extra("export", "torch", "transformers")
    from phi3v.bench.studies.export_settings import write_table

    click.echo(write_table(checkpoint, out, case, rounds=rounds, say=say))
