"""IMAGE arguments of a command: paths and URLs as they are, `-` as standard input, pipes as files that are kept."""

from __future__ import annotations

import sys

import click

from phi3v.images.local_file import is_pipe, read_bounded
from phi3v.images.source import HeldFile, is_http, read_source

from .notices import say
from .paged import PageSelection

_STDIN = "<stdin>"


def image_arguments(arguments: tuple[str, ...], pages: PageSelection | None = None) -> list[str | HeldFile]:
    """Return what to hand to the engine for each argument, and for each of the `pages` of a file that has several.

    Standard input may be named once. Neither it nor a pipe is read here. Raises click.UsageError for pages that are
    not there.
    """
    if arguments.count("-") > 1:
        raise click.UsageError("- (standard input) was given twice; it holds one image")
    if "-" in arguments and sys.stdin is None:
        raise click.UsageError("- is standard input, which is closed; give an image's path, or pipe one in")
    return [image for argument in arguments for image in _expand(argument, pages)]


def _expand(argument: str, pages: PageSelection | None) -> list[str | HeldFile]:
    if argument == "-" or is_pipe(argument):
        return [_hold(argument)]
    if is_http(argument):
        return [argument]
    found, note = (pages or PageSelection.first()).choose(argument)
    if not found:
        raise click.UsageError(note or f"{argument} has one page, and --pages names others")
    if note:
        say(note)
    return list(found)


def _hold(argument: str) -> HeldFile:
    """What can be read once, under the name it has in messages."""
    if argument == "-":
        return HeldFile(_STDIN, lambda: read_bounded(sys.stdin.buffer.read, _STDIN))
    return HeldFile(argument, lambda: read_source(argument)[0])
