"""`phi3v verify`: whether a model's files are still what its manifest lists."""

from __future__ import annotations

import click

from .progress import progress_bar


@click.command(short_help="Check a model's files.")
@click.argument("model", metavar="NAME[:VARIANT]|FOLDER")
def verify(model: str) -> None:
    """Read every file of a model on this machine and compare it with the manifest of its fetch or export.

    Names each bad file and exits with 1; such a model does not load until `phi3v pull` has repaired it.

    \b
    phi3v verify phi-3-vision
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
        again = f"`{manifest.pull_command}` fetches just these" if manifest.origin else "export the model again"
        raise click.ClickException(f"{len(problems)} of {len(manifest.files)} files are bad; {again}")
    click.echo(f"{folder}: all {len(manifest.files)} files are as recorded")
