"""Prints tables that no terminal may cut."""

from __future__ import annotations

from collections.abc import Sequence

import click


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows under each other, whole at any width of the terminal: names that were cut could not be told apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
