"""`phi3v bench batch`: a batch against the same requests one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phi3v.types import MAX_BATCH_SIZE

from .options import case_option, record_option, rounds_option, say
from .terminal import print_markdown

if TYPE_CHECKING:
    from phi3v.bench.cases import Case


@click.command(short_help="Measure a batch against single requests.")
@click.argument("model", metavar="NAME|FOLDER")
@case_option("640x480:1:64")
@click.option("--rows", type=click.IntRange(2, MAX_BATCH_SIZE), default=8, show_default=True)
@rounds_option(5)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--max-memory", type=int, help="Bytes the batch may take. Default: half of what is free.")
@record_option
def batch(
    model: str, case: Case, rows: int, rounds: int, threads: int | None, max_memory: int | None, out: Path | None
) -> None:
    """Answer the same requests alone and together, in turns, and print the ratios.

    \b
    phi3v bench batch my-model --case 336x336:1:32 --rounds 2
    """
    from phi3v.bench.batch_speed import format_table, measure
    from phi3v.models.local import resolve_model

    record = measure(
        resolve_model(model), case, rows=rows, rounds=rounds, threads=threads, max_memory=max_memory, out=out, say=say
    )
    print_markdown(format_table(record))
