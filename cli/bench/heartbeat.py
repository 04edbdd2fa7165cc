"""`phi3v bench heartbeat`: whether an event loop goes on while the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import case_option, record_option, rounds_option, say

if TYPE_CHECKING:
    from phi3v.bench.cases import Case


@click.command(short_help="Measure how free an event loop is while the model reads.")
@click.argument("model", metavar="NAME|FOLDER")
@case_option("1344x1344:16:8")
@rounds_option(3)
@record_option
def heartbeat(model: str, case: Case, rounds: int, out: Path | None) -> None:
    """Ask MODEL two questions about an image through phi3v.AsyncEngine on the CPU while a task beats every 10 ms.

    Prints how late beats were, and how much sooner the second question's first token came. Exits with 1 when an answer
    is not that of a fresh run.

    \b
    phi3v bench heartbeat my-model --case 1344x1344:16:8
    """
    from phi3v.bench.heartbeat import describe, measure
    from phi3v.models.local import resolve_model

    record = measure(resolve_model(model), case, rounds=rounds, out=out, say=say)
    click.echo(describe(record))
    if record.content["differing"]:
        raise click.exceptions.Exit(1)
