"""`phi3v rm`: delete a pulled model."""

from __future__ import annotations

import click


@click.command(short_help="Delete a pulled model.")
@click.argument("name", metavar="NAME[:VARIANT]")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(name: str, yes: bool) -> None:
    """Delete a pulled model, or what an unfinished pull has left of it, and say how many bytes that freed.

    \b
    phi3v rm phi-3-vision:cpu-int4
    """
    from phi3v.export.hub.remove import plan_removal, remove

    removal = plan_removal(name)
    for folder in removal.folders:
        click.echo(str(folder), err=True)
    what = f"{name} ({removal.nbytes / 1e9:.2f} GB)"
    if not yes:
        click.confirm(f"delete {what}?", abort=True, err=True)
    click.echo(f"freed {remove(name):,} bytes", err=True)
