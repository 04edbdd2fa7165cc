"""Prints a report: drawn in a terminal, as Markdown where it goes into a file or a pipe."""

from __future__ import annotations

import sys

import click


def print_markdown(text: str) -> None:
    """Print Markdown with its tables."""
    if not sys.stdout.isatty():
        click.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
