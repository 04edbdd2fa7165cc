"""`phi3v warm`: keep a model loaded for the questions to come."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from ..options import device_option, model_option
from .duration import duration, spoken

if TYPE_CHECKING:
    from .frames import Message


@click.command()
@model_option
@device_option
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long it stays without a question: 90s, 10m, 2h, forever.",
)
@click.option("--background", is_flag=True, help="Leave it behind and return when it is ready.")
@click.option("--status", is_flag=True, help="List the warm engines instead.")
@click.option("--stop", "stopping", is_flag=True, help="End the warm engines instead.")
@click.option("--json", "as_json", is_flag=True, help="With --status: print JSON.")
def warm(
    model: str | None, device: str, keep_alive_s: float, background: bool, status: bool, stopping: bool, as_json: bool
) -> None:
    """Keep a model loaded: `phi3v ask` then answers at once.

    It is found by commands of the same user, for the same model, device and phi3v; others load the model themselves.
    Without --background it runs until Ctrl-C.

    \b
    phi3v warm --background
    phi3v ask "What is this?" photo.jpg
    phi3v warm --stop
    """
    if status + stopping + background > 1:
        raise click.UsageError("--background, --status and --stop exclude each other; give one of them")
    if as_json and not status:
        raise click.UsageError("--json belongs to --status")
    if not keep_alive_s:
        raise click.UsageError("--keep-alive 0 would end the engine at once; allowed: 90s, 10m, 2h, forever")
    if status:
        _print_status(as_json)
    elif stopping:
        _stop()
    else:
        _start(model, device, keep_alive_s, background)


def _start(model: str | None, device: str, keep_alive_s: float, background: bool) -> None:
    from .start import leave_behind, offer

    if background:
        leave_behind(model, device, keep_alive_s)
        return
    if not offer(model, device, keep_alive_s, lambda status: click.echo(f"phi3v: {_line(status)}", err=True)):
        click.echo("phi3v: such an engine is warm already; see `phi3v warm --status`", err=True)


def _stop() -> None:
    from .start import stop

    for pid in stop():
        click.echo(f"phi3v: ended the engine in process {pid}", err=True)


def _print_status(as_json: bool) -> None:
    from .start import engines

    found = engines()
    if as_json:
        click.echo(json.dumps([_record(status) for status in found], indent=1))
        return
    for status in found:
        click.echo(_line(status))
    if not found:
        click.echo("no engine is warm; `phi3v warm --background` starts one", err=True)


def _record(status: Message) -> Message:
    forever = status["keep_alive_s"] == math.inf
    return {**status, "model": status["model"]["path"], "keep_alive_s": None if forever else status["keep_alive_s"]}


def _line(status: Message) -> str:
    answering = status["asking"]
    doing = f"answering, {answering - 1} waiting" if answering else f"idle for {spoken(round(status['idle_s']))}"
    return (
        f"{status['model']['path']} is warm on {status['device']} in process {status['pid']}: "
        f"{status['answered']} answered, {doing}, kept for {spoken(status['keep_alive_s'])}"
    )
