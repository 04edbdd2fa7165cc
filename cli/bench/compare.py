"""`phi3v bench compare`: what became faster or slower from one record to another."""

from __future__ import annotations

from pathlib import Path

import click

from .changes import print_changes
from .options import path_type


@click.command(short_help="Say what became faster or slower between records.")
@click.argument("old", type=path_type)
@click.argument("new", type=path_type)
@click.option("--ratios", metavar="SUBJECT/REFERENCE", help="Compare SUBJECT's times over REFERENCE's within each run.")
@click.option("--different", is_flag=True, help="Compare although machine, versions or models differ.")
def compare(old: Path, new: Path, ratios: str | None, different: bool) -> None:
    """Say what became better, stayed the same or became worse from record OLD to NEW. Exits with 1 on a regression.

    A change counts when it exceeds a tenth and three standard errors of the medians.

    \b
    phi3v bench compare old.json new.json
    """
    from phi3v.bench.compare import compare as compare_times
    from phi3v.bench.compare import compare_ratios
    from phi3v.bench.record import Record

    first, second = Record.read(old), Record.read(new)
    if ratios:
        subject, _, reference = ratios.partition("/")
        changes = compare_ratios(first, second, subject, reference)
    else:
        changes = compare_times(first, second, allow_different=different)
    print_changes(changes)
    worse = sum(change.verdict == "worse" for change in changes)
    if worse:
        raise click.ClickException(f"{worse} of {len(changes)} times became worse")
