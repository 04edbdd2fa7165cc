"""`phi3v ask`: one question about any number of pictures, the answer streamed to stdout."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .answer_options import answer_format_options
from .options import device_option, model_option, num_crops_option
from .picture_args import picture_arguments
from .stats import stats_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phi3v import Engine, GenerationRequest, GenerationResult, TokenStream
    from phi3v.answers import AnswerFormat


@click.command()
@click.argument("prompt")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@model_option
@device_option
@num_crops_option
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, default=0, show_default=True, help="Sample among the k likeliest; 0: all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Sample among this much probability.")
@click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1 repeats less.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@answer_format_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the text.")
@click.option("--stats", is_flag=True, help="Print what the answer cost, on stderr.")
def ask(
    prompt: str, images: tuple[str, ...], model: str | None, device: str, as_json: bool, stats: bool, **options: Any
) -> None:
    """Ask PROMPT about pictures: paths, http(s) URLs, data: URLs, or - for standard input.

    The pictures stand before the text, unless PROMPT places them with <|image_1|>, <|image_2|>, ...

    \b
    phi3v ask "What is this?" photo.jpg
    phi3v ask "What is the difference?" before.png after.webp
    curl -s https://example.org/chart.png | phi3v ask "Explain this chart." -
    phi3v ask "Title, author and year?" cover.jpg --schema 'title, author, year int?'
    """
    import phi3v

    request = _request(prompt, images, **options)
    began = time.perf_counter()
    with _interrupt_kills() as interrupt_raises, phi3v.load(model, device) as engine:  # type: ignore[arg-type]
        load_s = time.perf_counter() - began
        if model is None:
            click.echo(f"phi3v: answering with {engine.model.name} ({engine.model.path})", err=True)
        if engine.model.synthetic:
            click.echo("phi3v: this model has random weights; its answers mean nothing", err=True)
        with engine.stream_request(request) as stream:
            result = _print_tokens(stream, interrupt_raises, quiet=as_json or request.answer_format is not None)
        if as_json:
            click.echo(json.dumps(_record(engine, result, load_s)))
        elif request.answer_format is not None:
            click.echo(result.text)  # whole or not at all: a pipe must not see half of a JSON object
        if stats:
            click.echo("\n".join(stats_lines(engine, result, load_s)), err=True)


def _request(
    prompt: str,
    images: tuple[str, ...],
    max_new_tokens: int,
    num_crops: int | None,
    stop: tuple[str, ...],
    answer_format: AnswerFormat | None,
    **how: Any,
) -> GenerationRequest:
    """The request, with all that can be wrong in it found before a model is loaded."""
    from phi3v import GenerationRequest, SamplingParams
    from phi3v.images import check_image

    request = GenerationRequest(
        prompt, picture_arguments(images), max_new_tokens, num_crops, stop, SamplingParams(**how), answer_format
    )
    for image in images:
        if image != "-":
            check_image(image)
    return request


def _print_tokens(stream: TokenStream, interrupt_raises: Callable[[], None], *, quiet: bool) -> GenerationResult:
    for token in stream:
        interrupt_raises()  # from the first token on Python runs between tokens: the answer can end the clean way
        if not quiet:
            _write(token.text)
    if not quiet:
        _write("\n")
    return stream.result


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _interrupt_kills() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end the process at once: loading and prefill hold the interpreter, which would hear it late.

    Yields a function that makes it an exception again. A job told to ignore it, such as one behind nohup, still does.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return

    def raises() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield raises
    finally:
        raises()


def _record(engine: Engine, result: GenerationResult, load_s: float) -> dict[str, Any]:
    timings = result.timings
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "timings": {"load_s": load_s, **asdict(timings), "ttft_s": timings.ttft_s, "tpot_s": timings.tpot_s},
        "model": str(engine.model.path),
        "device": engine.device,
        "synthetic": engine.model.synthetic,
    }
