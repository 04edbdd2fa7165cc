"""`phi3v warm`: keep a model loaded for the questions to come."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from .notices import say
from .options import device_option, duration, model_option, threads_option

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName

    from .warm.frames import Message


@click.command(short_help="Keep a model loaded for the next question.")
@model_option
@device_option
@threads_option
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long it stays without a question: 90s, 10m, 2h, forever.",
)
@click.option("--background", is_flag=True, help="Leave it behind, and return when it is ready.")
@click.option("--status", is_flag=True, help="List the warm engines instead.")
@click.option("--stop", "stopping", is_flag=True, help="End the warm engines instead.")
@click.option("--json", "as_json", is_flag=True, help="With --status: print JSON.")
def warm(
    model: str | None,
    device: DeviceName,
    keep_alive_s: float,
    background: bool,
    status: bool,
    stopping: bool,
    as_json: bool,
) -> None:
    """Keep a model loaded, so that `phi3v ask` answers at once.

    Commands of the same user find it if they want the same model, device and phi3v; others load the model themselves.
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


def _start(model: str | None, device: DeviceName, keep_alive_s: float, background: bool) -> None:
    from .warm.start import leave_behind, offer

    if background:
        leave_behind(model, device, keep_alive_s)
    elif not offer(model, device, keep_alive_s, lambda status: say(_describe(status))):
        say("an engine for this model is already warm; see `phi3v warm --status`")


def _stop() -> None:
    from .warm.start import stop

    for pid in stop():
        say(f"ended the engine in process {pid}")


def _print_status(as_json: bool) -> None:
    from .warm.start import engines

    found = engines()
    if as_json:
        click.echo(json.dumps([_status_record(status) for status in found], indent=1))
        return
    for status in found:
        click.echo(_describe(status))
    if not found:
        click.echo("no engine is warm; `phi3v warm --background` starts one", err=True)


def _status_record(status: Message) -> Message:
    """Return a status as `--json` prints it: JSON knows no infinity."""
    forever = status["keep_alive_s"] == math.inf
    return {**status, "model": status["model"]["path"], "keep_alive_s": None if forever else status["keep_alive_s"]}


def _describe(status: Message) -> str:
    answering = status["asking"]
    idle = format_duration(round(status["idle_s"]))
    doing = f"answering, {answering - 1} waiting" if answering else f"idle for {idle}"
    return (
        f"{status['model']['path']} is warm on {status['device']} in process {status['pid']}: "
        f"{status['answered']} answered, {doing}, kept for {format_duration(status['keep_alive_s'])}"
    )


def format_duration(seconds: float) -> str:
    """Write a duration as people do: 10 min, 1.5 s, forever."""
    if seconds == math.inf:
        return "forever"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
