"""Which of a folder's graphs run: those that multiply prompts in int8, or those with every matrix in blocks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, cast, get_args

from ..errors import DeviceError, OptionError
from ..machine.device_table import Device
from ..machine.int8_check import find_int8_fault
from ..machine.memory import available_memory
from ..models.folder import ModelDir

Prefill = Literal["auto", "int8", "int4"]
"""auto: int8 where the folder has it and the processor multiplies it exactly."""

PREFILL_VARIABLE = "PHI3V_PREFILL"


def wanted_prefill(prefill: str | None = None) -> Prefill:
    """What was asked for, here or by `PHI3V_PREFILL`, else "auto". Raises OptionError for anything else."""
    named = os.environ.get(PREFILL_VARIABLE) if prefill is None else None
    wanted = named or ("auto" if prefill is None else prefill)
    if wanted not in get_args(Prefill):
        what = f"{PREFILL_VARIABLE} is {named!r}" if named else f"prefill is {prefill!r}"
        raise OptionError(f"{what}; allowed: {', '.join(get_args(Prefill))}")
    return cast(Prefill, wanted)


def choose_graphs(folder: ModelDir, device: Device, prefill: Prefill) -> Mapping[str, str]:
    """The files to load in place of the folder's own, by part.

    Raises OptionError for what the folder does not have, and DeviceError for what the processor cannot multiply or the
    machine's memory cannot hold.
    """
    chosen = {}
    if _takes_blocks(folder, device, prefill):
        chosen = {part: name for part, (name, _) in folder.block_graphs.items()}
    if device == "cpu":
        _require_memory(folder, chosen)
    return chosen


def _takes_blocks(folder: ModelDir, device: Device, prefill: Prefill) -> bool:
    """Whether to take the graphs without int8 of a folder that has both."""
    if not folder.int8_prefill:
        if prefill == "int8":
            raise OptionError(
                f"{folder.path} has no int8 prefill; make a folder with `phi3v export CHECKPOINT FOLDER --prefill "
                "int8`, or leave prefill out"
            )
        return False
    if device != "cpu":
        fault: str | None = f"{device} does not multiply it row by row"
    else:
        fault = find_int8_fault() if prefill != "int4" else None
    if prefill == "int8" and fault:
        raise DeviceError(f"{fault}; leave prefill out")
    if prefill == "int4" or fault:
        if not folder.block_graphs:
            reason = fault or "it has no other weights"
            raise DeviceError(
                f"{folder.path} multiplies everything in int8, and {reason}; make a folder with "
                "`phi3v export CHECKPOINT FOLDER --precision int4`"
            )
        return True
    return False


def _require_memory(folder: ModelDir, chosen: Mapping[str, str]) -> None:
    """Refuse what cannot be loaded: the system would end the process half-way."""
    beside = {part: size for part, (_, size) in folder.block_graphs.items()}
    least = sum((folder.graphs | beside).values())
    needed, free = least if chosen else sum(folder.graphs.values()), available_memory()
    if free is None or needed <= free:
        return
    advice = "end other programs, or take a smaller build"
    if least < needed:
        advice = f"without int8 prefill it takes {least / 1e9:.1f} GB: `export {PREFILL_VARIABLE}=int4`"
    raise DeviceError(f"{folder.path} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; {advice}")
