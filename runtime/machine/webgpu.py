"""WebGPU on this machine: which adapter there is, and whether a model may run on it."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from ..errors import Phi3VError
from .attention_check import AttentionFault, find_attention_fault
from .device_table import TABLE, DeviceStatus
from .plugins import find_missing, plugin_devices
from .vulkan import Adapter, vulkan_adapters

ALLOW_SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""Set to 1, ONNX Runtime's provider takes a CPU that plays a GPU: for tests."""

_ROW = TABLE["webgpu"]


def webgpu_status() -> DeviceStatus:
    """Look for the package, the system's library and an adapter. Computes nothing on it."""
    if missing := find_missing(_ROW):
        return DeviceStatus(False, missing)
    try:
        adapter = find_adapter()
    except Phi3VError as exc:
        return DeviceStatus(False, str(exc))
    if adapter is None:
        return DeviceStatus(False, f"no GPU answers; {_driver_advice()}")
    if adapter.software and os.environ.get(ALLOW_SOFTWARE) != "1":
        return DeviceStatus(
            False,
            f"the only adapter is {adapter.name}, a CPU that plays a GPU; {_driver_advice()} "
            f"({ALLOW_SOFTWARE}=1 takes this one all the same, slower than the CPU)",
        )
    if not provider_devices():
        return DeviceStatus(False, f"ONNX Runtime finds no GPU beside the adapter {adapter.name}; {_driver_advice()}")
    return DeviceStatus(True, "ready")


def hardware_memory() -> int | None:
    """Bytes of the GPU that WebGPU can use; 0 if there is none but software, None if how many is unknown."""
    if not webgpu_status().usable:
        return 0
    adapter = find_adapter()
    return 0 if adapter is None or adapter.software else adapter.memory_bytes


def find_adapter() -> Adapter | None:
    """The GPU that WebGPU runs on, a software adapter if there is nothing else. Raises Phi3VError.

    On Linux Vulkan says; elsewhere ONNX Runtime, which lists hardware only.
    """
    if sys.platform == "linux":
        return next(iter(vulkan_adapters()), None)
    return next((Adapter(_describe(device), software=False) for device in provider_devices()), None)


def provider_devices() -> tuple[Any, ...]:
    """What ONNX Runtime may use through the plugin. Raises Phi3VError."""
    assert _ROW.plugin is not None
    return plugin_devices(_ROW.plugin)


@cache
def attention_fault(dtype: str) -> AttentionFault | None:
    """What is wrong with attention on the adapter, computed once in a process; None if nothing is."""
    return find_attention_fault(provider_devices(), dtype)


def _describe(device: Any) -> str:
    metadata = dict(device.device.metadata)
    return str(metadata.get("Description") or f"a GPU of {device.device.vendor or 'an unknown vendor'}")


def _driver_advice() -> str:
    if sys.platform == "linux":
        return (
            "install the GPU's Vulkan driver (apt install mesa-vulkan-drivers; NVIDIA's is its own), try `vulkaninfo`"
        )
    return "install the current driver of the GPU"
