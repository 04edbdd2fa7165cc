"""`phi3v chat`: a conversation about images, in the terminal or from a script."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Unpack

import click

from .notices import announce_model
from .options import device_option, generation_options, model_option, num_crops_option, threads_option
from .output import answer_record
from .repl import Repl

if TYPE_CHECKING:
    from phi3v import GenerationResult
    from phi3v.machine.device_table import DeviceName
    from phi3v.options import GenerationOptions

    from .answering import Answerer


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@model_option
@device_option
@threads_option
@num_crops_option
@generation_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer, each on a line, not text.")
def chat(
    images: tuple[str, ...], model: str | None, device: DeviceName, as_json: bool, **options: Unpack[GenerationOptions]
) -> None:
    """Talk about images (paths, http(s) or data: URLs): the model knows what was said before.

    Type one question per line; /help lists the other commands. Ctrl-C ends an answer, Ctrl-D ends the chat. When
    standard input is not a terminal, each of its lines is a turn, and the exit status is 1 if a turn failed.

    \b
    phi3v chat chart.png
    printf '%s\\n' "Explain this chart." "Shorter, please." | phi3v chat chart.png
    """
    from phi3v.options import make_request

    from .answering import load_engine

    if sys.stdin is None:
        raise click.UsageError("standard input is closed; chat reads its questions there")
    if "-" in images:
        raise click.UsageError("- is standard input, where chat reads its questions; give an image's path or URL")
    opening = make_request("", images, **options)
    with load_engine(model, device, opening.images) as loaded:
        announce_model(loaded.answerer.model, named=model is not None)
        with loaded.engine.session(opening.images, num_crops=opening.num_crops) as session:
            to_json = partial(_to_json, loaded.answerer) if as_json else None
            failed = Repl(session, loaded.answerer.model.name, opening, to_json).run()
    if failed:
        raise click.exceptions.Exit(1)


def _to_json(answerer: Answerer, prompt: str, result: GenerationResult) -> str:
    return json.dumps(answer_record(answerer, prompt, result))
