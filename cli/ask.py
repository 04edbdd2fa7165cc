"""`phi3v ask`: one question about any number of pictures, the answer streamed to stdout."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .options import device_option, model_option, num_crops_option
from .picture_args import picture_arguments
from .stats import stats_lines
from .warm.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phi3v import GenerationRequest, GenerationResult

    from .warm.ask_engine import AskEngine, AskStream


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
@click.option(
    "--keep-alive",
    "keep_alive_s",
    type=duration,
    metavar="TIME",
    help="Leave the model loaded for this long (90s, 10m, 2h, forever): the next question is answered at once.",
)
@click.option("--no-warm", is_flag=True, help="Load the model here, even if `phi3v warm` holds it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the text.")
@click.option("--stats", is_flag=True, help="Print what the answer cost, on stderr.")
def ask(
    prompt: str,
    images: tuple[str, ...],
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
    curl -s https://example.org/chart.png | phi3v ask "Explain this chart." -
    """
    from .warm.ask_engine import AskEngine

    if no_warm and keep_alive_s is not None:
        raise click.UsageError("--keep-alive and --no-warm exclude each other; give one of them")
    request = _request(prompt, images, **options)
    warmth: dict[str, Any] = {"warm": not no_warm, "keep_alive_s": keep_alive_s, "printing": not as_json}
    with _interrupt_kills() as interrupt_raises, AskEngine(request, model, device, **warmth) as engine:
        if engine.warm:
            interrupt_raises()  # nothing here holds the interpreter
        if model is None:
            click.echo(f"phi3v: answering with {engine.model.name} ({engine.model.path})", err=True)
        if engine.model.synthetic:
            click.echo("phi3v: this model has random weights; its answers mean nothing", err=True)
        with engine.stream_request(request) as stream:
            result = _print_tokens(stream, interrupt_raises, quiet=as_json)
        if as_json:
            click.echo(json.dumps(_record(engine, result)))
        if stats:
            click.echo("\n".join(stats_lines(engine, result, engine.load_s)), err=True)


def _request(
    prompt: str, images: tuple[str, ...], max_new_tokens: int, num_crops: int | None, stop: tuple[str, ...], **how: Any
) -> GenerationRequest:
    """The request, with what is wrong in it found before a model is loaded; AskEngine judges the pictures."""
    from phi3v import GenerationRequest, SamplingParams

    return GenerationRequest(prompt, picture_arguments(images), max_new_tokens, num_crops, stop, SamplingParams(**how))


def _print_tokens(stream: AskStream, interrupt_raises: Callable[[], None], *, quiet: bool) -> GenerationResult:
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


def _record(engine: AskEngine, result: GenerationResult) -> dict[str, Any]:
    timings = result.timings
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "timings": {"load_s": engine.load_s, **asdict(timings), "ttft_s": timings.ttft_s, "tpot_s": timings.tpot_s},
        "model": str(engine.model.path),
        "device": engine.device,
        "warm": engine.warm,
        "synthetic": engine.model.synthetic,
    }
