"""Picture arguments of a command: paths and URLs as they are, `-` as standard input."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click


def picture_arguments(arguments: tuple[str, ...]) -> list[str | BinaryIO]:
    """What to hand to the engine for each argument. Standard input can be named once; whoever reads it bounds it."""
    if arguments.count("-") > 1:
        raise click.UsageError("- (standard input) was given twice; it holds one picture")
    if "-" in arguments and sys.stdin is None:
        raise click.UsageError("- is standard input, which is closed; give a picture's path, or pipe one in")
    return [sys.stdin.buffer if argument == "-" else argument for argument in arguments]
