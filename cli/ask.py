"""`phi3v ask`: one question about any number of pictures, the answer streamed to stdout."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .interrupts import interrupt_kills
from .options import answer_options, device_option, model_option, num_crops_option
from .picture_args import picture_arguments
from .stats import stats_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phi3v import Engine, GenerationRequest, GenerationResult, TokenStream
    from phi3v.types import NumCrops


@click.command()
@click.argument("prompt")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@model_option
@device_option
@num_crops_option
@answer_options
@click.option(
    "-q",
    "--question",
    "questions",
    multiple=True,
    metavar="PROMPT",
    help="Another question about the same pictures, which are read once; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a line for each answer, instead of text.")
@click.option("--stats", is_flag=True, help="Print what the answer cost, on stderr.")
def ask(
    prompt: str,
    images: tuple[str, ...],
    questions: tuple[str, ...],
    model: str | None,
    device: str,
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
    """
    import phi3v

    request = _request(prompt, images, **options)
    began = time.perf_counter()
    with interrupt_kills() as interrupt_raises, phi3v.load(model, device) as engine:  # type: ignore[arg-type]
        load_s = time.perf_counter() - began
        say_what_answers(engine, by_default=model is None)
        for number, (question, stream) in enumerate(_streams(engine, request, questions)):
            if questions and not as_json:
                write("\n" if number else "")
                click.echo(f"> {question}", err=True)
            with stream:
                result = _print_tokens(stream, interrupt_raises, quiet=as_json)
            if as_json:
                click.echo(json.dumps(record(engine, question, result, load_s)))
            if stats:
                click.echo("\n".join(stats_lines(engine, result, load_s)), err=True)


def say_what_answers(engine: Engine, *, by_default: bool) -> None:
    """On stderr: which model it is when nobody named one, and that random weights mean nothing."""
    if by_default:
        click.echo(f"phi3v: answering with {engine.model.name} ({engine.model.path})", err=True)
    if engine.model.synthetic:
        click.echo("phi3v: this model has random weights; its answers mean nothing", err=True)


def _streams(
    engine: Engine, request: GenerationRequest, questions: tuple[str, ...]
) -> Iterator[tuple[str, TokenStream]]:
    """Each question with its stream; more than one share a session."""
    if not questions:
        yield request.prompt, engine.stream_request(request)
        return
    how = {"max_new_tokens": request.max_new_tokens, "stop": request.stop, **asdict(request.sampling)}
    with engine.session(request.images, num_crops=request.num_crops) as session:
        for question in (request.prompt, *questions):
            yield question, session.stream(question, **how)


def _request(
    prompt: str,
    images: tuple[str, ...],
    max_new_tokens: int,
    num_crops: NumCrops | None,
    stop: tuple[str, ...],
    **how: Any,
) -> GenerationRequest:
    """The request, with all that can be wrong in it found before a model is loaded."""
    from phi3v import GenerationRequest, SamplingParams
    from phi3v.images import check_image

    request = GenerationRequest(
        prompt, picture_arguments(images), max_new_tokens, num_crops, stop, SamplingParams(**how)
    )
    for image in images:
        if image != "-":
            check_image(image)
    return request


def _print_tokens(stream: TokenStream, interrupt_raises: Callable[[], None], *, quiet: bool) -> GenerationResult:
    for token in stream:
        interrupt_raises()  # from the first token on Python runs between tokens: the answer can end the clean way
        if not quiet:
            write(token.text)
    if not quiet:
        write("\n")
    return stream.result


def write(text: str) -> None:
    """Onto stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def record(engine: Engine, prompt: str, result: GenerationResult, load_s: float) -> dict[str, Any]:
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
