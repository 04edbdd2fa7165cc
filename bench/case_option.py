"""The type of `--case` on every command line that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .cases import Case


def case_type(text: str) -> Case:
    """A case from WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS. Raises BadParameter; loads numpy only when it is called."""
    from ..errors import OptionError
    from .cases import Case

    try:
        return Case.parse(text)
    except OptionError as exc:
        raise click.BadParameter(str(exc)) from exc
