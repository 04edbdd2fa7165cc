"""`phi3v chat`: a conversation about pictures, in the terminal or from a script."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .ask import record, say_what_answers
from .interrupts import Interrupt
from .options import device_option, generation_options, model_option, num_crops_option
from .repl import Repl

if TYPE_CHECKING:
    from phi3v import GenerationRequest
    from phi3v.types import NumCrops


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@model_option
@device_option
@num_crops_option
@generation_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a line for each answer, instead of text.")
def chat(images: tuple[str, ...], model: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Talk about pictures (paths, http(s) or data: URLs): the model knows what was said before.

    Type a question a line; /help lists what else there is. Ctrl-C ends an answer, Ctrl-D leaves. When standard input is
    no terminal, each of its lines is a turn; the status is 1 when one of them failed.

    \b
    phi3v chat chart.png
    printf '%s\\n' "Explain this chart." "Shorter, please." | phi3v chat chart.png
    """
    import phi3v

    if sys.stdin is None:
        raise click.UsageError("standard input is closed; chat reads its questions there")
    asked = _opening(images, **options)
    answering = {"max_new_tokens": asked.max_new_tokens, "stop": asked.stop, **asdict(asked.sampling)}
    began = time.perf_counter()
    with Interrupt(ends_program=True):
        loaded = phi3v.load(model, device)  # type: ignore[arg-type]
    with loaded as engine:
        load_s = time.perf_counter() - began
        say_what_answers(engine, by_default=model is None)
        with engine.session(asked.images, num_crops=asked.num_crops) as session:
            repl = Repl(session, engine.model.name, answering)
            if as_json:
                repl.on_answer = lambda prompt, result: json.dumps(record(engine, prompt, result, load_s))
            failed = repl.run()
    if failed:
        raise click.exceptions.Exit(1)


def _opening(
    images: tuple[str, ...], max_new_tokens: int, num_crops: NumCrops | None, stop: tuple[str, ...], **how: Any
) -> GenerationRequest:
    """What every turn has in common, with all that can be wrong in it found before a model is loaded."""
    from phi3v import GenerationRequest, SamplingParams
    from phi3v.images.load import check_image

    for image in images:
        if image == "-":
            raise click.UsageError("- is standard input, where chat reads its questions; give a picture's path or URL")
        check_image(image)
    return GenerationRequest("", images, max_new_tokens, num_crops, stop, SamplingParams(**how))
