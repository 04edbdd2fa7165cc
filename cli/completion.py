"""What the Tab key offers in a shell: the models on this machine, and files."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of models, then folders."""
    from phi3v.models.local import BUILTIN_NAME, local_models

    names = dict.fromkeys(name for model in local_models() for name in (model.name, model.full_name))
    found = [CompletionItem(name) for name in (*names, BUILTIN_NAME) if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def complete_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, as the shell itself completes them."""
    return [CompletionItem(incomplete, type="file")]
