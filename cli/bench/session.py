"""`phi3v bench session`: many questions about one image, in one session and in fresh runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import case_option, record_option, rounds_option, say

if TYPE_CHECKING:
    from phi3v.bench.cases import Case


@click.command(short_help="Measure many questions about one image.")
@click.argument("model", metavar="NAME|FOLDER")
@case_option("1344x1344:16:16")
@click.option("--questions", type=click.IntRange(1), default=10, show_default=True, help="Beyond ten they recur.")
@rounds_option(1)
@record_option
def session(model: str, case: Case, questions: int, rounds: int, out: Path | None) -> None:
    """Ask MODEL many questions about one image on the CPU, in one session and in fresh runs, and print the ratio.

    Exits with 1 when the two give different tokens.

    \b
    phi3v bench session my-model --case 1344x1344:16:16 --questions 10
    """
    from phi3v.bench.session_speed import describe_round, measure
    from phi3v.models.local import resolve_model

    record = measure(resolve_model(model), case, questions=questions, rounds=rounds, out=out, say=say)
    for found in record.content["rounds"]:
        click.echo(describe_round(found))
    if any(found["differing"] for found in record.content["rounds"]):
        raise click.exceptions.Exit(1)
