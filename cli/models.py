"""`phi3v models`, `phi3v verify`, `phi3v rm` and `phi3v migrate`: the models this machine has or could have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .progress import progress_bar

if TYPE_CHECKING:
    from phi3v.export.hub.catalog import PublishedBuild
    from phi3v.models.local import LocalModel, Machine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def models(as_json: bool) -> None:
    """List the published models and the ones on this machine, and say which fit it. Opens no socket."""
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


@click.command()
@click.argument("model", metavar="NAME[:VARIANT]|FOLDER")
def verify(model: str) -> None:
    """Read every file of a model on this machine and compare it with what was recorded when it was fetched or built.

    Names each bad file and exits with 1; such a model does not load until `phi3v pull` has repaired it.
    """
    from phi3v.export.progress import Meter
    from phi3v.models.local import resolve_model
    from phi3v.models.manifest import Manifest
    from phi3v.models.manifest import verify as verify_files

    folder = resolve_model(model)
    manifest = Manifest.read(folder)
    with progress_bar() as progress:
        meter = Meter(manifest.nbytes, progress)
        meter.enter("verifying")
        problems = verify_files(folder, on_read=meter.add)
    for name, problem in problems.items():
        click.echo(f"{folder / name} {problem}")
    if problems:
        again = f"`{manifest.pull_command}` fetches just these" if manifest.is_pulled else "export the model again"
        raise click.ClickException(f"{len(problems)} of {len(manifest.files)} files are bad; {again}")
    click.echo(f"{folder}: all {len(manifest.files)} files are as recorded")


@click.command()
@click.argument("name", metavar="NAME[:VARIANT]")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(name: str, yes: bool) -> None:
    """Delete a pulled model, or what an unfinished pull has left of it, and free the space it says."""
    from phi3v.export.hub.remove import plan_removal, remove

    removal = plan_removal(name)
    for folder in removal.folders:
        click.echo(str(folder), err=True)
    what = f"{name} ({removal.nbytes / 1e9:.2f} GB)"
    if not yes:
        click.confirm(f"delete {what}?", abort=True, err=True)
    click.echo(f"freed {remove(name):,} bytes", err=True)


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def migrate(old: Path, new: Path) -> None:
    """Make the folder NEW, which today's engine loads, from a build OLD in the layout before onnxruntime-genai 0.5.

    The weights are shared between both folders, not copied. Needs the onnx package (pip install onnx).
    """
    from phi3v.errors import MissingDependencyError

    try:
        from phi3v.export.migrate import migrate as migrate_folder
    except ImportError as exc:
        raise MissingDependencyError(f"migrating needs {exc.name}; run `pip install onnx`") from exc
    click.echo(str(migrate_folder(old, new)))


def _pulled_row(model: LocalModel, machine: Machine) -> dict[str, Any]:
    state = "damaged" if model.damaged else "here"
    fits = machine.fits(model.device, model.memory_bytes)
    return _row(model.name, model.variant, model.nbytes, fits, state, model.commit, str(model.path))


def _known_row(build: PublishedBuild, machine: Machine) -> dict[str, Any]:
    fits = machine.fits(build.device, build.memory_bytes)
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
