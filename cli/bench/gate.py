"""`phi3v bench gate`: the gate against regressions."""

from __future__ import annotations

from pathlib import Path

import click

from .changes import print_changes
from .options import path_type, say


@click.command(short_help="Check for regressions against the reference.")
@click.option("--baseline", type=path_type, help="Default: the committed one.")
@click.option("--record", is_flag=True, help="Write what is measured as the new baseline instead of judging it.")
def gate(baseline: Path | None, record: bool) -> None:
    """Measure a small model against the PyTorch reference and compare the ratios with the baseline's.

    Exits with 1 when a ratio is worse in two measurements in a row. A baseline from another processor or from other
    package versions decides nothing.

    \b
    phi3v bench gate
    """
    from tempfile import TemporaryDirectory

    from phi3v.bench.gate import BASELINE, check, measure
    from phi3v.bench.record import Record

    path = baseline or BASELINE
    with TemporaryDirectory() as scratch:
        if record:
            measure(Path(scratch), say=say).write(path)
            click.echo(str(path))
            return
        judgement = check(Record.read(path), Path(scratch), say)
    print_changes(judgement.changes)
    if judgement.stale:
        click.echo(f"the baseline decides nothing here ({judgement.stale}); --record makes one", err=True)
    if not judgement.passed:
        raise click.ClickException("slower against the reference than the baseline")
