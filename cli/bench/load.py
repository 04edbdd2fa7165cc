"""`phi3v bench load`: many clients of `phi3v serve` against one."""

from __future__ import annotations

from pathlib import Path

import click

from .options import record_option, say


@click.command("load", short_help="Put load on `phi3v serve`.")
@click.argument("model", metavar="NAME|FOLDER")
@click.option("--clients", type=click.IntRange(1, 512), default=64, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="For each phase.")
@click.option("--new-tokens", type=click.IntRange(1), default=32, show_default=True, help="Longest answer.")
@click.option("--soak", type=click.IntRange(0), default=0, help="Then ask so many more, and watch the memory.")
@record_option
def load(model: str, clients: int, seconds: float, new_tokens: int, soak: int, out: Path | None) -> None:
    """Serve MODEL on the CPU to one client and then to many, and print requests a second and times to the first token.

    Exits with 1 when an answer is not that of a fresh single run, or a request failed.

    \b
    phi3v bench load nano --clients 64 --seconds 60
    """
    from phi3v.bench.extras import require_extra
    from phi3v.bench.serve_load import describe, measure
    from phi3v.models.local import resolve_model

    require_extra("bench", "httpx")
    require_extra("serve", "uvicorn", "starlette")
    record = measure(
        resolve_model(model), clients=clients, seconds=seconds, new_tokens=new_tokens, soak=soak, out=out, say=say
    )
    click.echo(describe(record))
    phases = record.content["phases"]
    if any(phase["wrong"] or set(phase["statuses"]) - {"200", "429"} for phase in phases):
        raise click.exceptions.Exit(1)
