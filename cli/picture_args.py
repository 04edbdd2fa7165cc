"""Picture arguments of a command: paths and URLs as they are, `-` as the bytes on standard input."""

from __future__ import annotations

import sys

import click


def picture_arguments(arguments: tuple[str, ...]) -> list[str | bytes]:
    """What to hand to the engine for each argument. Standard input can be named once."""
    if arguments.count("-") > 1:
        raise click.UsageError("- (standard input) was given twice; it holds one picture")
    return [sys.stdin.buffer.read() if argument == "-" else argument for argument in arguments]
