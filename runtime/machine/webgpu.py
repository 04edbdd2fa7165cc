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


def webgpu_model_status(pixel_dtype: str | None, precision: str | None, *, by_itself: bool = False) -> DeviceStatus:
    """Whether WebGPU can run a model: also tries attention in the type that it computes in.

    A GPU that computes it wrongly is refused. On a software adapter that does, attention is left to the CPU; where
    nobody asked for WebGPU (`by_itself`), no software adapter is taken.
    """
    status, adapter = webgpu_status(), None
    if not status.usable or (adapter := find_adapter()) is None:
        return status
    if adapter.software and by_itself:
        return DeviceStatus(False, f"its adapter {adapter.name} is software")
    for dtype in _types_of(pixel_dtype, precision):
        fault = attention_fault(dtype)
        if fault is not None and not fault.runs:
            remedy = "take a build in fp32" if dtype == "float16" else "update its driver"
            return DeviceStatus(False, f"{adapter.name} cannot run this model: {fault.text}; {remedy}")
        if fault is not None and not adapter.software:
            return DeviceStatus(
                False,
                f"{adapter.name} computes wrongly ({fault.text}), and so would answer wrongly; update its driver, or "
                "take the CPU (--device cpu)",
            )
    return status


def _types_of(pixel_dtype: str | None, precision: str | None) -> list[str]:
    """What a model computes in; the table of embeddings of an int4 build is in float16, whatever the rest is."""
    return sorted({pixel_dtype or "float32", *(["float16"] if precision == "int4" else [])})


def attention_on_cpu(dtype: str) -> bool:
    """Whether attention is to run on the CPU, because the adapter is software and computes it wrongly."""
    adapter = find_adapter()
    return adapter is not None and adapter.software and attention_fault(dtype) is not None


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
