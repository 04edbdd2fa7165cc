"""`phi3v chat`: a conversation about images, in the terminal or from a script."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Unpack

import click

from .chat_state import read_conversation
from .completion import complete_files
from .image_args import image_arguments
from .notices import announce_model, quiet_option, tell
from .options import (
    background_option,
    device_option,
    generation_options,
    model_option,
    num_crops_option,
    system_option,
    threads_option,
)
from .output import answer_record
from .question import read_prompt
from .repl import Repl

if TYPE_CHECKING:
    from phi3v import GenerationResult
    from phi3v.machine.device_table import DeviceName
    from phi3v.options import GenerationOptions

    from .answering import Answerer


@click.command(short_help="Have a conversation about images.")
@click.argument("images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_files)
@model_option
@quiet_option
@device_option
@threads_option
@num_crops_option
@background_option
@system_option
@generation_options
@click.option("--continue", "continues", is_flag=True, help="Go on with the last conversation; IMAGEs come on top.")
@click.option("--no-history", is_flag=True, help="Keep neither the lines that are typed nor the conversation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer, each on a line, not text.")
def chat(
    images: tuple[str, ...],
    model: str | None,
    device: DeviceName,
    continues: bool,
    no_history: bool,
    as_json: bool,
    **options: Unpack[GenerationOptions],
) -> None:
    """Talk about images (paths, http(s) or data: URLs): the model knows what was said before.

    Type one question per line; /help lists the other commands. Ctrl-C ends an answer, Ctrl-D ends the chat. When
    standard input is not a terminal, each of its lines is a turn, and the exit status is 1 if a turn failed.
    In a terminal, lines and the last conversation are kept in $XDG_STATE_HOME/phi3v (~/.local/state/phi3v).

    \b
    phi3v chat chart.png
    phi3v chat --continue
    printf '%s\\n' "Explain this chart." "Shorter, please." | phi3v chat chart.png
    """
    from phi3v.options import make_request

    from .answering import load_engine

    if sys.stdin is None:
        raise click.UsageError("standard input is closed; chat reads its questions there")
    if "-" in images:
        raise click.UsageError("- is standard input, where chat reads its questions; give an image's path or URL")
    options["system"] = read_prompt(options.get("system", ""))
    if continues and no_history:
        raise click.UsageError("--continue goes on with what --no-history would not keep; give one of them")
    earlier = read_conversation() if continues else []
    more = images if earlier else ()
    shown = earlier[0].images if earlier else images
    opening = make_request("", image_arguments(shown), **options)
    with load_engine(model, device, opening.images) as loaded:
        announce_model(loaded.answerer.model, named=model is not None)
        with loaded.engine.session(
            opening.images, num_crops=opening.num_crops, background=opening.background, system=opening.system
        ) as session:
            if earlier:
                first, *rest = ((turn.prompt, turn.images, turn.answer) for turn in earlier)
                session.resume([(first[0], (), first[2]), *rest])
                tell(f"{len(earlier)} turns of the last conversation are known")
            to_json = partial(_to_json, loaded.answerer) if as_json else None
            keeps = not no_history and sys.stdin.isatty()
            repl = Repl(session, loaded.answerer.model.name, opening, to_json, keeps=keeps or continues)
            repl.show_next(more)
            failed = repl.run()
    if failed:
        raise click.exceptions.Exit(1)


def _to_json(answerer: Answerer, prompt: str, result: GenerationResult) -> str:
    return json.dumps(answer_record(answerer, prompt, result))
