"""Options that several commands share, in one wording, and the types of their values."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from phi3v.errors import OptionError
from phi3v.machine.device_table import DEVICE_VARIABLE, SPELLINGS, TABLE, DeviceName, split_device
from phi3v.machine.threads import THREADS_VARIABLE

from .completion import complete_model

_Command = TypeVar("_Command", bound=Callable[..., Any])

model_option = click.option(
    "--model",
    "-m",
    shell_complete=complete_model,
    metavar="NAME|FOLDER",
    help="Pulled model (name or name:variant), model folder, or nano, the built-in model. "
    "Default: $PHI3V_MODEL, else the best pulled one for this machine, else the built-in one.",
)


system_option = click.option(
    "--system", default="", metavar="TEXT|@FILE", help="Instructions that stand in front of the conversation."
)


def _device(value: str) -> DeviceName:
    try:
        split_device(value)
    except OptionError as exc:
        raise click.BadParameter(str(exc)) from exc
    return cast(DeviceName, value)


def _device_option(help_text: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--device",
        type=_device,
        metavar="|".join(SPELLINGS),
        envvar=DEVICE_VARIABLE,
        show_envvar=True,
        default="auto",
        show_default=True,
        help=help_text,
    )


device_option = _device_option("Where to run; auto: the first that works of the devices the model is for.")


def _set_threads(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    """Say it by the environment, which a warm engine is told apart by and a batch's process inherits."""
    if value is not None and not ctx.resilient_parsing:
        os.environ[THREADS_VARIABLE] = str(value)


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=_set_threads,
    help=f"Threads that compute on the CPU. Default: ${THREADS_VARIABLE}, else one a core.",
)
pull_device_option = _device_option("Where it is to run; auto: the best for this machine.")
build_device_option = click.option(
    "--device", type=click.Choice([*TABLE]), default="cpu", show_default=True, help="Device to build for."
)
# The choices are those of phi3v.export.precision, which cannot be imported here: it loads numpy, and --help must not.
precision_option = click.option(
    "--precision", type=click.Choice(["int4", "int8", "fp16", "fp32"]), default="int4", show_default=True
)
prefill_option = click.option(
    "--prefill",
    type=click.Choice(["auto", "int4", "int8"]),
    default="auto",
    show_default=True,
    help="What int4 for the CPU multiplies prompts and images in. int8: sooner, with more memory; auto: int8 if this "
    "machine has the memory and a processor for it.",
)
block_size_option = click.option(
    "--block-size",
    type=click.Choice(["16", "32", "64", "128", "256"]),
    help="Weights that share an int4 scale. Default: 128 for the CPU, 32 for a GPU.",
)


def _num_crops(value: str) -> int | str:
    if value == "auto":
        return value
    if value.isdecimal() and 1 <= int(value) <= 16:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither auto nor 1 to 16.")


num_crops_option = click.option(
    "--num-crops",
    type=_num_crops,
    metavar="1-16|auto",
    help="Most 336-pixel crops an image is cut into: more detail, more tokens. auto: the fewest that keep each "
    "image's own resolution. Default: the model folder's.",
)

background_option = click.option(
    "--background",
    metavar="COLOUR|drop",
    default="white",
    show_default=True,
    help="Colour behind transparent pixels, such as white or #202020; drop: show what transparency hides, as the "
    "PyTorch reference does.",
)

_GENERATION = (
    click.option(
        "--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest answer."
    ),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated."),
    click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy."),
    click.option("--top-k", type=int, default=0, show_default=True, help="Sample among the k likeliest; 0: all."),
    click.option("--top-p", type=float, default=1.0, show_default=True, help="Sample among this much probability."),
    click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1 repeats less."),
    click.option("--seed", type=int, help="Makes sampling repeatable."),
)


def generation_options(command: _Command) -> _Command:
    """Add the options that say how an answer is generated: length, stop strings, sampling."""
    for option in reversed(_GENERATION):
        command = option(command)
    return command


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def size(text: str) -> int:
    """Read a number of bytes as people write it: 6GB, 800MB, 1.5GiB. The type of an option."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMG]?I?)B?", text.strip().upper())
    if found is None or found[2] not in _UNITS:
        raise click.BadParameter(f"{text!r} is not a size; write 6GB, 800MB or 1.5GiB")
    return int(float(found[1]) * _UNITS[found[2]])


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Read a number of seconds as people write it: 90, 90s, 10m, 2h, forever (infinite). The type of an option."""
    if text in ("forever", "inf"):
        return math.inf
    found = re.fullmatch(r"(\d{1,9}(?:\.\d*)?)([smh]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration; allowed: 90 or 90s, 10m, 2h, forever")
    return float(found[1]) * _SECONDS[found[2]]
