"""What a command tells the person at the terminal, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from phi3v.models.folder import ModelDir


def say(line: str) -> None:
    """Print one line for the person at the terminal."""
    click.echo(f"phi3v: {line}", err=True)


def announce_model(model: ModelDir, *, named: bool) -> None:
    """Say which model answers, unless the person `named` it, and what its answers are worth."""
    for line in model_notices(model, named=named):
        click.echo(line, err=True)


def model_notices(model: ModelDir, *, named: bool) -> list[str]:
    """Return the lines that `announce_model` prints."""
    from phi3v.models.folder import BUILTIN

    builtin = model.path == BUILTIN
    which = "the built-in model; `phi3v pull` fetches Phi-3-vision itself" if builtin else str(model.path)
    lines = [] if named else [f"phi3v: answering with {model.name} ({which})"]
    if model.about:
        lines.append(f"phi3v: {model.name} {model.about}")
    if model.synthetic:
        lines.append("phi3v: this model has random weights; its answers mean nothing")
    return lines
