"""`phi3v models`: the models this machine has or could have."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from phi3v.export.hub.catalog import PublishedBuild
    from phi3v.models.local import LocalModel, Machine


@click.command(short_help="List the models there are.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def models(as_json: bool) -> None:
    """List the published models and the ones on this machine, and say which fit it. Opens no socket.

    \b
    phi3v models
    phi3v models --json
    """
    from phi3v.export.hub.catalog import BUILDS
    from phi3v.models.folder import BUILTIN
    from phi3v.models.local import BUILTIN_NAME, Machine, local_models

    machine, pulled = Machine.inspect(), local_models()
    rows = [_pulled_row(model, machine) for model in pulled]
    held = {model.full_name for model in pulled}
    rows += [_known_row(build, machine) for build in BUILDS if build.full_name not in held]
    if BUILTIN.is_dir():
        size = sum(file.stat().st_size for file in BUILTIN.iterdir())
        rows.append(_row(BUILTIN_NAME, "built-in", size, True, "here", "", str(BUILTIN)))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _print_rows(rows)


def _pulled_row(model: LocalModel, machine: Machine) -> dict[str, Any]:
    state = "damaged" if model.damaged else "here"
    fits = machine.choose(model.devices, model.memory_bytes) is not None
    return _row(model.name, model.variant, model.nbytes, fits, state, model.commit, str(model.path))


def _known_row(build: PublishedBuild, machine: Machine) -> dict[str, Any]:
    fits = machine.choose(build.devices, build.memory_bytes) is not None
    return _row(build.name, build.variant, build.download_bytes, fits, "not pulled", "", build.repo)


def _row(name: str, variant: str, nbytes: int, fits: bool, state: str, commit: str, place: str) -> dict[str, Any]:
    return {
        "name": name,
        "variant": variant,
        "bytes": nbytes,
        "fits": fits,
        "state": state,
        "commit": commit,
        "place": place,
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "size", "fits here", "state", "commit"):
        table.add_column(column, no_wrap=True)
    table.add_column("place", overflow="fold")
    for row in rows:
        name = f"{row['name']}:{row['variant']}" if row["variant"] != "built-in" else row["name"]
        fits = "yes" if row["fits"] else "no"
        table.add_row(name, _size(row["bytes"]), fits, row["state"], row["commit"][:12], row["place"])
    # Names and paths stay whole when the list goes to a file or a pipe.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"
