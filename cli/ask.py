"""`phi3v ask`: one question about any number of images, the answer streamed to stdout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import click

from .answer_options import answer_format_options
from .completion import complete_files
from .image_args import image_arguments
from .notices import announce_model, check_request, quiet_option
from .options import (
    background_option,
    device_option,
    duration,
    generation_options,
    model_option,
    num_crops_option,
    system_option,
    threads_option,
)
from .output import AnswerPrinter
from .paged import PageSelection, pages_option
from .question import read_prompt, split_words

if TYPE_CHECKING:
    from phi3v import GenerationRequest
    from phi3v.machine.device_table import DeviceName
    from phi3v.options import GenerationOptions

    from .answering import LoadedEngine


@click.command(short_help="Ask a question about images.")
@click.argument("prompt")
@click.argument("images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_files)
@model_option
@quiet_option
@device_option
@threads_option
@num_crops_option
@background_option
@system_option
@generation_options
@answer_format_options
@pages_option
@click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    metavar="PROMPT",
    help="Another question about the same images, which are read once; may be repeated.",
)
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    metavar="TIME",
    help="Leave the model loaded for this long (90s, 10m, 2h, forever), so that the next question is answered at once. "
    "0: stop any warm engine after this answer.",
)
@click.option("--no-warm", is_flag=True, help="Load the model here, even if `phi3v warm` holds it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer, each on a line, not text.")
@click.option("--stats", is_flag=True, help="Print what the answer cost, on stderr.")
def ask(
    prompt: str,
    images: tuple[str, ...],
    questions: tuple[str, ...],
    model: str | None,
    device: DeviceName,
    keep_alive_s: float | None,
    no_warm: bool,
    as_json: bool,
    stats: bool,
    pages: PageSelection | None,
    **options: Unpack[GenerationOptions],
) -> None:
    """Ask PROMPT about images: paths, http(s) URLs, data: URLs, or - for standard input.

    The images stand before the text, unless PROMPT places them with <|image_1|>, <|image_2|>, ... @FILE reads PROMPT
    from a file, @- from standard input; @@ begins a question with @.

    \b
    phi3v ask "What is this?" photo.jpg
    phi3v ask "What is the difference?" before.png after.webp
    phi3v ask "What does the chart show?" chart.png -q "Which bar is the highest?" -q "What is its value?"
    curl -s https://example.org/chart.png | phi3v ask "Explain this chart." -
    phi3v ask @question.txt chart.png --system "Answer in one sentence."
    phi3v ask "Summarise these pages." report.pdf --pages 1-3
    phi3v ask "Title, author and year?" cover.jpg --schema 'title, author, year int?'
    """
    from phi3v.options import make_request

    from .answering import load_engine, open_answer

    if keep_alive_s is not None and (no_warm or questions):
        other = "--no-warm" if no_warm else "-q (whose session stays in this process)"
        raise click.UsageError(f"--keep-alive and {other} exclude each other; give one of them")
    prompt, images = split_words(prompt, images)
    prompt, *more = (read_prompt(word, images) for word in (prompt, *questions))
    options["system"] = read_prompt(options.get("system", ""), images)
    request = make_request(prompt, image_arguments(images, pages), **options)
    _check_prompts((prompt, *more), request)
    printer = AnswerPrinter(as_json, whole=request.answer_format is not None, stats=stats)
    if questions:
        with load_engine(model, device, request.images) as loaded:
            announce_model(loaded.answerer.model, named=model is not None)
            check_request(loaded.answerer.model, request)
            _answer_all(loaded, request, (prompt, *more), printer)
        return
    with open_answer(
        request, model, device, use_warm=not no_warm, keep_alive_s=keep_alive_s, streams=printer.streams
    ) as answer:
        announce_model(answer.answerer.model, named=model is not None)
        check_request(answer.answerer.model, request)
        result = printer.print_tokens(answer)
        printer.print_result(answer.answerer, prompt, result)


def _check_prompts(prompts: tuple[str, ...], request: GenerationRequest) -> None:
    """Refuse a bad prompt before a model is loaded for the ones in front of it. Raises PromptError."""
    from phi3v.prompt import PromptLayout

    for prompt in prompts:
        PromptLayout.of(prompt, len(request.images), request.system)


def _answer_all(
    loaded: LoadedEngine, request: GenerationRequest, questions: tuple[str, ...], printer: AnswerPrinter
) -> None:
    """Answer several questions in one session, which reads the images of the request once."""
    with loaded.engine.session(
        request.images, num_crops=request.num_crops, background=request.background, system=request.system
    ) as session:
        for number, question in enumerate(questions):
            printer.separate(question, first=number == 0)
            with session.stream_request(replace(request, prompt=question, images=())) as stream:
                result = printer.print_tokens(stream)
            printer.print_result(loaded.answerer, question, result)
