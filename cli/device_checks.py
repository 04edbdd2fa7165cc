"""What `phi3v doctor` finds of devices that are plugins, and where a model's nodes run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .check import Check

if TYPE_CHECKING:
    from phi3v.genai.placement import Placement
    from phi3v.machine.attention_check import AttentionFault
    from phi3v.machine.device_table import DeviceKind, DeviceStatus
    from phi3v.models.folder import ModelDir

_MOST_KINDS = 4
"""Kinds of nodes on the CPU that are named."""


def check_plugins() -> Iterator[Check]:
    """Yield one finding per plugin: package, library and adapter, or what to install."""
    from phi3v.machine.cuda import install_command, installed
    from phi3v.machine.device_table import TABLE

    for row in TABLE.values():
        if row.plugin is None:
            continue
        version = installed(row.plugin.distribution)
        if version is None:
            beside = "; not beside the CUDA build, which this replaces" if installed("onnxruntime-genai-cuda") else ""
            about = f"not installed; it runs models on {row.title}{beside}"
            yield Check(row.kind, "note", about, install_command(row))
            continue
        library = row.library.get(sys.platform)
        about = f"{row.plugin.distribution} {version}{f', {library}' if library else ''}"
        yield _check_webgpu(row, about) if row.kind == "webgpu" else _check_openvino(row, about)


def _check_webgpu(row: DeviceKind, about: str) -> Check:
    """An adapter is tried in both types that models compute in."""
    from phi3v.machine.webgpu import attention_fault, find_adapter, webgpu_status

    status = webgpu_status()
    adapter = find_adapter() if status.usable else None
    if adapter is None:
        return _refused(row, about, status)
    faults = {dtype: attention_fault(dtype) for dtype in ("float32", "float16")}
    memory = f" ({adapter.memory_bytes >> 20} MiB)" if adapter.memory_bytes else ""
    told = "; ".join(_tell(dtype, fault) for dtype, fault in faults.items())
    detail = f"{about}, adapter {adapter.name}{memory}{', software' if adapter.software else ''}; {told}"
    wrong = any(fault is not None and fault.runs for fault in faults.values())
    if wrong and adapter.software:
        return Check(row.kind, "note", detail, "for tests only: attention is left to the CPU, and auto never takes it")
    if wrong:
        return Check(row.kind, "fail", detail, "update the GPU's driver, or take the CPU (--device cpu)")
    return Check(row.kind, "ok" if faults["float32"] is None else "note", detail)


def _tell(dtype: str, fault: AttentionFault | None) -> str:
    if fault is None:
        return f"attention in {dtype} is right"
    return fault.text if fault.runs or dtype != "float16" else "no float16"


def _check_openvino(row: DeviceKind, about: str) -> Check:
    from phi3v.machine.openvino import openvino_devices, openvino_status

    status = openvino_status("cpu")
    if not status.usable:
        return _refused(row, about, status)
    devices = ", ".join(f"{part} ({name})" for part, name in openvino_devices())
    return Check(row.kind, "ok", f"{about}, devices: {devices}")


def _refused(row: DeviceKind, about: str, status: DeviceStatus) -> Check:
    reason, _, remedy = status.reason.partition("; ")
    return Check(row.kind, "note", f"{about}: {reason}", remedy.removeprefix("run: "))


def check_placement(model: ModelDir) -> Iterator[Check]:
    """Yield where the nodes of a model's graphs run, for every device that can run it. Loads the graphs."""
    from phi3v import Phi3VError
    from phi3v.genai.placement import place_nodes
    from phi3v.machine.device import choose_device
    from phi3v.machine.device_table import TABLE

    for kind in TABLE:
        try:
            device = choose_device(kind, model)
            placed = place_nodes(model, device)
        except Phi3VError as exc:
            yield Check(f"{kind} nodes", "note", str(exc))
            continue
        yield Check(f"{kind} nodes", "ok", "; ".join(map(_describe, placed)))


def _describe(placed: Placement) -> str:
    told = f"{placed.graph} {placed.on_device} of {placed.nodes}"
    if not placed.on_cpu:
        return told
    named = [f"{count} {kind}" for kind, count in placed.on_cpu.most_common(_MOST_KINDS)]
    more = len(placed.on_cpu) - len(named)
    return f"{told} (CPU: {', '.join(named)}{f' and {more} other kinds' if more else ''})"
