"""Finds out which device a model can really run on here.

genai's own `is_cuda_available()` only says how its wheel was built.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from ..errors import DeviceError, OptionError
from .cuda import cuda_status, select_gpu

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", Device]
"""What a caller may ask for; `choose_device` decides what "auto" means."""

DEVICES: tuple[str, ...] = get_args(DeviceChoice)


def select_device(wanted: str) -> str:
    """The kind of a device: "auto", "cpu" or "cuda".

    "cuda:1" hides all GPUs but the second from this process, so it comes before every question about GPUs. Raises
    OptionError, or DeviceError if it comes too late.
    """
    if numbered := re.fullmatch(r"cuda:(\d{1,3})", wanted):
        select_gpu(int(numbered[1]))
        return "cuda"
    if wanted not in DEVICES:
        raise OptionError(f"device is {wanted!r}; allowed: {', '.join(DEVICES)}, cuda:NUMBER")
    return wanted


def choose_device(wanted: str, built_for: str) -> Device:
    """The device to run on: what was asked for, or for "auto" the one the folder was built for where it works.

    Raises DeviceError when the wanted device, or the only one the folder runs on, is not usable here.
    """
    kind = select_device(wanted)
    if kind == "cpu" or (kind == "auto" and built_for == "cpu"):
        return "cpu"
    status = cuda_status()
    if status.usable:
        return "cuda"
    if kind == "cuda":
        raise DeviceError(f"CUDA is not usable: {status.reason}")
    raise DeviceError(
        f"this model folder was built for CUDA, which is not usable: {status.reason}; "
        "or take a folder built for the CPU; device='cpu' tries this one all the same, slowly"
    )
