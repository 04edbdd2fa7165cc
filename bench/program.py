"""Lets the modules that hold a tool of `phi3v bench` run as programs too, as `python -m phi3v.bench.NAME`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def run_command(*words: str) -> None:
    """Run `phi3v bench WORDS` with this process's arguments.

    The program is looked up as it is installed, because bench/ may not import the command line.
    """
    (program,) = entry_points(group="console_scripts", name="phi3v")
    program.load()(["bench", *words, *sys.argv[1:]], prog_name="phi3v")
