"""IMAGE arguments of a command: paths and URLs as they are, `-` as standard input, pipes as files that are kept."""

from __future__ import annotations

import sys

import click

from phi3v.images.source import HeldFile, is_pipe, read_bounded, read_source

_STDIN = "<stdin>"


def image_arguments(arguments: tuple[str, ...]) -> list[str | HeldFile]:
    """Return what to hand to the engine for each argument.

    Standard input may be named once. Neither it nor a pipe is read here.
    """
    if arguments.count("-") > 1:
        raise click.UsageError("- (standard input) was given twice; it holds one image")
    if "-" in arguments and sys.stdin is None:
        raise click.UsageError("- is standard input, which is closed; give an image's path, or pipe one in")
    return [_hold(argument) if argument == "-" or is_pipe(argument) else argument for argument in arguments]


def _hold(argument: str) -> HeldFile:
    """What can be read once, under the name it has in messages."""
    if argument == "-":
        return HeldFile(_STDIN, lambda: read_bounded(sys.stdin.buffer.read, _STDIN))
    return HeldFile(argument, lambda: read_source(argument)[0])
