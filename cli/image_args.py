"""IMAGE arguments of a command: paths and URLs as they are, `-` as standard input."""

from __future__ import annotations

import sys
from typing import BinaryIO, cast

import click


class StandardInput:
    """The image on standard input: read when it is first wanted, and kept, so that it can be read again."""

    name = "<stdin>"

    def __init__(self) -> None:
        self._data: bytes | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the first `size` bytes, the same ones every time."""
        if self._data is None:
            self._data = sys.stdin.buffer.read(size)
        return self._data


def image_arguments(arguments: tuple[str, ...]) -> list[str | BinaryIO]:
    """Return what to hand to the engine for each argument.

    Standard input may be named once. It is not read here, so whoever reads it limits its size.
    """
    if arguments.count("-") > 1:
        raise click.UsageError("- (standard input) was given twice; it holds one image")
    if "-" in arguments and sys.stdin is None:
        raise click.UsageError("- is standard input, which is closed; give an image's path, or pipe one in")
    return [cast("BinaryIO", StandardInput()) if argument == "-" else argument for argument in arguments]
