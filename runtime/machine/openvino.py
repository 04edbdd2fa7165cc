"""OpenVINO on this machine: which of Intel's devices it lists."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Phi3VError
from .device_table import TABLE, DeviceStatus
from .plugins import find_missing, plugin_devices

_ROW = TABLE["openvino"]
_ADVICE = {
    "gpu": "install Intel's compute runtime (apt install intel-opencl-icd)",
    "npu": "install Intel's NPU driver (github.com/intel/linux-npu-driver)",
}


def openvino_status(part: str) -> DeviceStatus:
    """Look for the package, and whether OpenVINO lists this part: "cpu", "gpu" or "npu"."""
    if missing := find_missing(_ROW):
        return DeviceStatus(False, missing)
    try:
        there = openvino_parts()
    except Phi3VError as exc:
        return DeviceStatus(False, str(exc))
    if part in there:
        return DeviceStatus(True, "ready")
    held = ", ".join(there) or "nothing"
    return DeviceStatus(False, f"OpenVINO finds no {part} here, only {held}; {_ADVICE.get(part, 'use another device')}")


def openvino_parts() -> tuple[str, ...]:
    """The parts that OpenVINO lists here, as they are typed. Raises Phi3VError."""
    return tuple(dict.fromkeys(part for part, _ in openvino_devices()))


def openvino_part(about: Mapping[str, str]) -> str:
    """Which part a device is, by its metadata. OpenVINO numbers several of a kind: "GPU.0", "GPU.1"."""
    return about.get("ov_device", "").lower().partition(".")[0]


def openvino_devices() -> list[tuple[str, str]]:
    """(part, full name) of each device that OpenVINO lists. Raises Phi3VError."""
    assert _ROW.plugin is not None
    listed = (dict(device.ep_metadata) for device in plugin_devices(_ROW.plugin))
    parts = ((openvino_part(about), about) for about in listed)
    return [(part, str(about.get("FULL_DEVICE_NAME", part))) for part, about in parts if part in _ROW.parts]
