"""What a command tells the person at the terminal, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from phi3v import GenerationRequest, GenerationResult
    from phi3v.models.folder import ModelDir

_QUIET = "phi3v.quiet"


def _be_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_QUIET] = value


quiet_option = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="Print nothing but answers and errors."
)


def is_quiet() -> bool:
    """Whether the person wants answers and errors alone."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.meta.get(_QUIET))


def say(line: str) -> None:
    """Print one line for the person at the terminal."""
    tell(f"phi3v: {line}")


def tell(line: str) -> None:
    """The same, without our name in front."""
    if not is_quiet():
        click.echo(line, err=True)


def announce_model(model: ModelDir, *, named: bool) -> None:
    """Say which model answers, unless the person `named` it, and whether its answers mean nothing."""
    from phi3v.models.folder import BUILTIN

    if not named and model.path == BUILTIN:
        say(f"answering with {model.name}, {model.brief}; `phi3v pull` fetches Phi-3-vision")
    elif not named:
        say(f"answering with {model.name} ({model.path})")
    if model.synthetic:
        say("this model has random weights; its answers mean nothing")


def check_request(model: ModelDir, request: GenerationRequest) -> None:
    """Refuse what this model cannot answer, and say what its answers are not worth. Raises click.UsageError."""
    if model.needs_image and not (request.images or any(turn.images for turn in request.earlier)):
        raise click.UsageError(
            f"{model.name} ({model.brief}) answers questions about images only, and none is given; add one, or "
            "`phi3v pull` Phi-3-vision"
        )
    if request.answer_format is not None and not model.knows_formats:
        say(f"{model.name} has not learned to answer in a format: the form is kept, and what it says means little")


def report_result(result: GenerationResult) -> None:
    """Say what was not read of the images, and that an answer was cut off."""
    for note in result.notes:
        say(note)
    if result.finish_reason == "length":
        spent = result.usage.completion_tokens
        say(f"the answer was cut off after {spent} tokens; --max-new-tokens {2 * spent} lets it go on")


def describe_model(model: ModelDir) -> list[str]:
    """Return what a description of the model says of its answers."""
    lines: list[Any] = [f"{model.name} {model.about}"] if model.about else []
    return lines + ["random weights: its answers mean nothing"] * model.synthetic
