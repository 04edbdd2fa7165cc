"""`phi3v migrate`: a build in the layout before genai 0.5 -> a folder that loads."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Turn an old build into one that loads.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def migrate(old: Path, new: Path) -> None:
    """Make the folder NEW, which today's engine loads, from a build OLD in the layout before onnxruntime-genai 0.5.

    The weights are shared between both folders, not copied. Needs the onnx package (pip install onnx).

    \b
    phi3v migrate old-build new-build
    """
    from phi3v.errors import MissingDependencyError

    try:
        from phi3v.export.migrate import migrate as migrate_folder
    except ImportError as exc:
        raise MissingDependencyError(f"migrating needs {exc.name}; run `pip install onnx`") from exc
    click.echo(str(migrate_folder(old, new)))
