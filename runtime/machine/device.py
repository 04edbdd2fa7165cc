"""Finds out which device a model can really run on here.

genai's own `is_cuda_available()` only says how its wheel was built.
"""

from __future__ import annotations

import logging
import os
from typing import Protocol, cast

from ..errors import DeviceError, OptionError
from .cuda import cuda_status, gpus, select_gpu
from .device_table import DEVICE_VARIABLE, PREFERENCE, TABLE, Device, DeviceStatus, split_device
from .openvino import openvino_status
from .webgpu import find_adapter, webgpu_model_status

_log = logging.getLogger("phi3v")
_NAMES = {"cpu": "the CPU", "cuda": "CUDA", "webgpu": "WebGPU", "openvino": "OpenVINO"}


def wanted_device(device: str | None) -> str:
    """The device that was named, here or by `PHI3V_DEVICE`, else "auto". Raises OptionError for another name."""
    named = os.environ.get(DEVICE_VARIABLE) if device is None else None
    wanted = named or ("auto" if device is None else device)
    try:
        split_device(wanted)
    except OptionError as exc:
        if named:
            raise OptionError(f"{DEVICE_VARIABLE}: {exc}") from exc
        raise
    return wanted


def select_device(wanted: str) -> None:
    """Make the GPU of "cuda:1" the only one this process sees, before any question about GPUs is asked.

    Raises OptionError for an unknown device, DeviceError if it comes too late.
    """
    kind, part = split_device(wanted)
    if kind == "cuda" and part:
        select_gpu(int(part))


class SuitedModel(Protocol):
    """What decides where a model folder runs."""

    @property
    def built_for(self) -> str:
        """The kind of device its graphs were made for."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds that "auto" may run it on."""

    @property
    def pixel_dtype(self) -> str | None:
        """What its vision graph computes in."""

    @property
    def precision(self) -> str | None:
        """What its matrices are kept in, None for a build that does not say."""


def choose_device(wanted: str, model: SuitedModel) -> Device:
    """The device to run on: what was asked for, or for "auto" the first that works of those the model is for.

    Raises DeviceError when the wanted device, or every one that the model is for, is not usable here.
    """
    kind, part = split_device(wanted)
    if kind != "auto":
        device = _resolve(kind, part)
        status = device_status(device, model)
        if not status.usable:
            raise DeviceError(f"{_NAMES[kind]} is not usable: {status.reason}")
        return device
    reasons: dict[str, str] = {}
    for candidate in (kind for kind in PREFERENCE if kind in model.devices):
        device = _resolve(candidate, "")
        status = device_status(device, model, by_itself=True)
        if status.usable:
            return device
        _log.info("%s is not taken: %s", _NAMES[candidate], status.reason)
        reasons[candidate] = status.reason
    built_for = model.built_for
    reason = reasons.get(built_for, "its manifest does not list it among the folder's devices")
    raise DeviceError(
        f"this model folder was built for {_NAMES[built_for]}, which is not usable: {reason}; "
        "or take a folder built for the CPU; device='cpu' tries this one all the same, slowly"
    )


def same_device(wanted: str, model: SuitedModel, asked: str, running_on: str) -> bool:
    """Whether `wanted` is where a model runs now that was asked for by the name `asked`, without choosing a GPU for it.

    Raises DeviceError or OptionError.
    """
    (kind, part), (asked_kind, asked_part) = split_device(wanted), split_device(asked)
    if (kind, part) == (asked_kind, asked_part):
        return True
    if "cuda" in (kind, asked_kind) and (part or "0") != (asked_part or "0"):
        return False
    if kind == "auto":
        return choose_device(wanted, model) == running_on
    return _resolve(kind, part) == running_on


def _resolve(kind: str, part: str) -> Device:
    """Name a device in full: "openvino" alone is Intel's GPU where there is one, else the CPU."""
    if kind != "openvino":
        return cast(Device, kind)
    if not part and openvino_status("gpu").usable:
        part = "gpu"
    return cast(Device, f"openvino:{part or 'cpu'}")


def device_status(device: str, model: SuitedModel, *, by_itself: bool = False) -> DeviceStatus:
    """Whether a device can run a model. `by_itself`: nobody asked for the device, so it has to be the real thing."""
    kind, part = split_device(device)
    if kind == "cuda":
        return cuda_status()
    if kind == "openvino":
        return _refuse_float16(kind, model) or openvino_status(part or "cpu")
    if kind == "webgpu":
        return webgpu_model_status(model.pixel_dtype, model.precision, by_itself=by_itself)
    return DeviceStatus(True, "ready")


def _refuse_float16(kind: str, model: SuitedModel) -> DeviceStatus | None:
    if model.pixel_dtype != "float16" or "fp16" in TABLE[kind].precisions:
        return None
    return DeviceStatus(
        False,
        f"this model computes in float16, and {kind} takes {' and '.join(TABLE[kind].precisions)} builds; "
        f"make one with `phi3v export CHECKPOINT FOLDER --device {kind}`, or pull a build for the CPU",
    )


def gpu_memory(device: str) -> int | None:
    """Bytes of memory of the GPU that this device is; None where unknown."""
    if device == "webgpu":
        adapter = find_adapter()
        return adapter.memory_bytes if adapter else None
    return next((gpu.memory_bytes for gpu in gpus()), None)
