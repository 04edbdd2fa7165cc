"""Options and types that several commands of `phi3v bench` share, and where they report progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from phi3v.bench.cases import Case

_Command = TypeVar("_Command", bound=Callable[..., Any])

path_type = click.Path(path_type=Path)
existing_path_type = click.Path(path_type=Path, exists=True)
CASE_HELP = (
    "What is measured, as WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS: 1344x1344:16:64 is an image of 1344 x 1344 pixels in at "
    "most 16 crops, and an answer of 64 tokens"
)
record_option = click.option("--out", type=path_type, help="Write the JSON record here.")


def case_type(text: str) -> Case:
    """Parse WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS. Raises BadParameter; numpy is only loaded once there is a case."""
    from phi3v.bench.cases import Case
    from phi3v.errors import OptionError

    try:
        return Case.parse(text)
    except OptionError as exc:
        raise click.BadParameter(str(exc)) from exc


def case_option(default: str) -> Callable[[_Command], _Command]:
    """Make the option for the one case that a command measures."""
    return click.option("--case", type=case_type, default=default, show_default=True, help=CASE_HELP)


def rounds_option(default: int) -> Callable[[_Command], _Command]:
    """Make the option for the number of rounds, the warm-up not counted."""
    return click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="How often everything is measured in turns, after a warm-up. Five or more can be compared later.",
    )


def say(line: str) -> None:
    """Report progress on stderr."""
    click.echo(line, err=True)
