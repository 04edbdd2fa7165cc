"""The GPUs that Vulkan offers, asked through its loader: WebGPU runs on one of them on Linux."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

_LOADER = "libvulkan.so.1"
_INSTANCE_INFO = 1  # VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO
_CPU = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
_DISCRETE_FIRST = (2, 1, 3, 0, _CPU)
_DEVICE_LOCAL = 1  # VK_MEMORY_HEAP_DEVICE_LOCAL_BIT


@dataclass(frozen=True, slots=True)
class Adapter:
    """A GPU, or a CPU that plays one (`software`). `memory_bytes` is its largest heap, None where unknown."""

    name: str
    software: bool
    memory_bytes: int | None = None


class _InstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layers", ctypes.c_uint32),
        ("layer_names", ctypes.c_void_p),
        ("extensions", ctypes.c_uint32),
        ("extension_names", ctypes.c_void_p),
    )


def vulkan_adapters() -> list[Adapter]:
    """Every adapter, discrete GPUs first and software last; empty without a loader or a driver."""
    try:
        vulkan = ctypes.CDLL(_LOADER)
    except OSError:
        return []
    info, instance, count = _InstanceInfo(type=_INSTANCE_INFO), ctypes.c_void_p(), ctypes.c_uint32()
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)):
        return []
    try:
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None):
            return []
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        found = [_describe(vulkan, ctypes.c_void_p(handle)) for handle in handles[: count.value]]
    finally:
        vulkan.vkDestroyInstance(instance, None)
    return [adapter for _, adapter in sorted(found, key=lambda each: _DISCRETE_FIRST.index(each[0]))]


def _describe(vulkan: ctypes.CDLL, handle: ctypes.c_void_p) -> tuple[int, Adapter]:
    """An adapter behind its type. The structures are larger than what is read of them."""
    properties, memory = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(4096)
    vulkan.vkGetPhysicalDeviceProperties(handle, properties)
    vulkan.vkGetPhysicalDeviceMemoryProperties(handle, memory)
    (kind,) = struct.unpack_from("<I", properties.raw, 16)  # behind four numbers: versions, vendor, device
    name = properties.raw[20:276].partition(b"\0")[0].decode(errors="replace")
    (heaps,) = struct.unpack_from("<I", memory.raw, 260)  # behind 32 memory types of 8 bytes and their number
    sizes = [struct.unpack_from("<QI", memory.raw, 264 + 16 * heap) for heap in range(heaps)]
    largest = max((size for size, flags in sizes if flags & _DEVICE_LOCAL), default=None)
    known = kind if kind in _DISCRETE_FIRST else 0
    return known, Adapter(name, kind == _CPU, largest)
