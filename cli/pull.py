"""`phi3v pull`: fetch a published model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from phi3v.machine.device_table import DeviceName, split_device

from .options import pull_device_option
from .progress import progress_bar

if TYPE_CHECKING:
    from phi3v.export.hub.catalog import PublishedBuild
    from phi3v.export.hub.pull import Plan


@click.command(short_help="Fetch a published model.")
@click.argument("name", default="phi-3-vision", metavar="[NAME[:VARIANT]]")
@pull_device_option
@click.option("--revision", help="Branch, tag or commit of the repository. Default: the catalogue's.")
@click.option("--offline", is_flag=True, help="Open no socket: succeed only when the model is here and complete.")
@click.option(
    "--prefill",
    type=click.Choice(["int4", "int8"]),
    default="int4",
    show_default=True,
    help="int8: make a second model of a cpu-int4 build beside it, whose first token comes sooner and which takes more "
    "memory. Needs onnx (the export extra).",
)
@click.option("--dry-run", is_flag=True, help="Print files, sizes, destination and free disk; fetch nothing.")
def pull(name: str, device: DeviceName, revision: str | None, offline: bool, prefill: str, dry_run: bool) -> None:
    """Fetch a published model, verify every byte, and print its folder.

    NAME is a model of `phi3v models`, by default phi-3-vision; without a VARIANT the one for the device, or for this
    machine (a GPU with enough memory: cuda-int4, else cpu-int4). The files go to the Hugging Face cache; HF_HOME,
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are respected. Run it again to continue after an interruption, to repair a
    damaged file, or to update; it does nothing when the model is complete and current.

    \b
    phi3v pull
    phi3v pull phi-3-vision:cuda-fp16
    phi3v pull phi-3-vision:cpu-int4 --prefill int8
    phi3v pull phi-3.5-vision --dry-run
    """
    from phi3v.export.hub.catalog import find_build
    from phi3v.export.hub.prefill import add_prefill, can_have_prefill
    from phi3v.export.hub.pull import plan_pull
    from phi3v.export.hub.pull import pull as pull_build
    from phi3v.models.local import Machine

    build = find_build(name, Machine.inspect(), split_device(device)[0])
    if dry_run:
        _print_plan(plan_pull(build, revision))
        return
    with progress_bar() as progress:
        pulled = pull_build(build, revision=revision, offline=offline, progress=progress)
    model = pulled.model
    state = {"fetched": "fetched and verified", "current": "already here and up to date", "kept": "already here"}
    click.echo(f"{model.full_name} ({_licence(build)}), commit {model.commit}: {state[pulled.state]}", err=True)
    if prefill == "int8":
        with progress_bar() as progress:
            model = add_prefill(model, progress)
        click.echo(f"{model.full_name}: made of {pulled.model.full_name}, whose weights it shares", err=True)
    elif can_have_prefill(model):
        click.echo(f"for a sooner first token: phi3v pull {model.full_name} --prefill int8", err=True)
    click.echo(str(model.path))


def _licence(build: PublishedBuild) -> str:
    return f"licence: {build.licence}"


def _print_plan(plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    build = plan.build
    table = Table("file", "bytes", "to fetch", box=None)
    for file in plan.listing.files:
        table.add_row(file.path, f"{file.size:,}", f"{plan.missing[file.path]:,}")
    total = sum(file.size for file in plan.listing.files)
    table.add_row("total", f"{total:,}", f"{plan.missing_bytes:,}")
    click.echo(f"{build.full_name}: {build.repo} at {plan.listing.commit}, {_licence(build)}")
    Console(width=140).print(table)
    click.echo(f"to {plan.folder}")
    click.echo(f"disk: {plan.free_bytes / 1e9:.1f} GB free, {plan.missing_bytes / 1e9:.2f} GB to fetch")
