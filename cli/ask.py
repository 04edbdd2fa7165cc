"""`phi3v ask`: one question about any number of pictures, the answer streamed to stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .answer_options import answer_format_options
from .interrupts import killable
from .notices import model_notices
from .options import device_option, generation_options, model_option, num_crops_option
from .picture_args import picture_arguments
from .stats import stats_lines
from .warm.duration import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phi3v import Engine, GenerationRequest, GenerationResult, TokenStream
    from phi3v.answer_format import AnswerFormat
    from phi3v.options import GenerationOptions
    from phi3v.types import NumCrops

    from .warm.ask_engine import AskEngine, AskStream


@click.command()
@click.argument("prompt")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@model_option
@device_option
@num_crops_option
@generation_options
@answer_format_options
@click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    metavar="PROMPT",
    help="Another question about the same pictures, which are read once; may be repeated.",
)
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    metavar="TIME",
    help="Leave the model loaded for this long (90s, 10m, 2h, forever): the next question is answered at once. "
    "0 leaves none behind: a warm engine that is there ends with this answer.",
)
@click.option("--no-warm", is_flag=True, help="Load the model here, even if `phi3v warm` holds it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a line for each answer, instead of text.")
@click.option("--stats", is_flag=True, help="Print what the answer cost, on stderr.")
def ask(
    prompt: str,
    images: tuple[str, ...],
    questions: tuple[str, ...],
    model: str | None,
    device: str,
    keep_alive_s: float | None,
    no_warm: bool,
    as_json: bool,
    stats: bool,
    **options: Any,
) -> None:
    """Ask PROMPT about pictures: paths, http(s) URLs, data: URLs, or - for standard input.

    The pictures stand before the text, unless PROMPT places them with <|image_1|>, <|image_2|>, ...

    \b
    phi3v ask "What is this?" photo.jpg
    phi3v ask "What is the difference?" before.png after.webp
    phi3v ask "What does the chart show?" chart.png -q "Which bar is the highest?" -q "What is its value?"
    curl -s https://example.org/chart.png | phi3v ask "Explain this chart." -
    phi3v ask "Title, author and year?" cover.jpg --schema 'title, author, year int?'
    """
    from .warm.ask_engine import AskEngine

    if keep_alive_s is not None and (no_warm or questions):
        other = "--no-warm" if no_warm else "-q (whose session stays in this process)"
        raise click.UsageError(f"--keep-alive and {other} exclude each other; give one of them")
    request = _request(prompt, images, questions, **options)
    quiet = as_json or request.answer_format is not None
    warmth: dict[str, Any] = {"warm": not (no_warm or questions), "keep_alive_s": keep_alive_s, "printing": not quiet}
    with AskEngine(request, model, device, **warmth) as engine:
        say_what_answers(engine, by_default=model is None)
        for number, (question, stream) in enumerate(_streams(engine, request, questions)):
            if questions and not as_json:
                write("\n" if number and not quiet else "")
                click.echo(f"> {question}", err=True)
            with stream:
                result = _print_tokens(stream, quiet=quiet)
            if as_json:
                click.echo(json.dumps(record(engine, question, result, engine.load_s) | {"warm": engine.warm}))
            elif request.answer_format is not None:
                click.echo(result.text)  # whole or not at all: a pipe must not see half of a JSON object
            if stats:
                click.echo("\n".join(stats_lines(engine, result, engine.load_s)), err=True)


def say_what_answers(engine: Engine | AskEngine, *, by_default: bool) -> None:
    """On stderr: which model it is when nobody named one, and how far its answers go."""
    for line in model_notices(engine.model, named=not by_default):
        click.echo(line, err=True)


def _streams(
    engine: AskEngine, request: GenerationRequest, questions: tuple[str, ...]
) -> Iterator[tuple[str, AskStream | TokenStream]]:
    """Each question with its stream; more than one share a session."""
    if not questions:
        yield request.prompt, engine.stream_request(request)
        return
    how: GenerationOptions = {
        "max_new_tokens": request.max_new_tokens,
        "stop": request.stop,
        "answer_format": request.answer_format,
        **asdict(request.sampling),  # type: ignore[typeddict-item]
    }
    with engine.local().session(request.images, num_crops=request.num_crops) as session:
        for question in (request.prompt, *questions):
            yield question, session.stream(question, **how)


def _request(
    prompt: str,
    images: tuple[str, ...],
    questions: tuple[str, ...],
    max_new_tokens: int,
    num_crops: NumCrops | None,
    stop: tuple[str, ...],
    answer_format: AnswerFormat | None,
    **how: Any,
) -> GenerationRequest:
    """The request of `prompt`, with what is wrong in it or in the further `questions` found before a model is loaded;
    AskEngine judges the pictures.
    """
    from phi3v import GenerationRequest, SamplingParams
    from phi3v.prompt import PromptLayout

    request = GenerationRequest(
        prompt, picture_arguments(images), max_new_tokens, num_crops, stop, SamplingParams(**how), answer_format
    )
    for text in (prompt, *questions):
        PromptLayout.of(text, len(images))
    return request


def _print_tokens(stream: AskStream | TokenStream, *, quiet: bool) -> GenerationResult:
    for token in killable(stream):
        if not quiet:
            write(token.text)
    if not quiet:
        write("\n")
    return stream.result


def write(text: str) -> None:
    """Onto stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def record(engine: Engine | AskEngine, prompt: str, result: GenerationResult, load_s: float) -> dict[str, Any]:
    """One answer as `--json` prints it."""
    timings = result.timings
    return {
        "prompt": prompt,
        "text": result.text,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "timings": {"load_s": load_s, **asdict(timings), "ttft_s": timings.ttft_s, "tpot_s": timings.tpot_s},
        "model": str(engine.model.path),
        "device": engine.device,
        "synthetic": engine.model.synthetic,
    }
