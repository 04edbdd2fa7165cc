"""Which nodes of a model's graphs run where: what ONNX Runtime decides when it loads them on a device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError
from ..machine.device_table import Device, row_of, split_device
from ..machine.openvino import openvino_part
from ..machine.plugins import plugin_devices
from ..models.folder import ModelDir
from .providers import graph_files, provider_options, require_free_graphs

_CPU = "CPUExecutionProvider"
_RECORD = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True, slots=True)
class Placement:
    """How many nodes of one graph run on the device, and which kinds of nodes are left to the CPU."""

    graph: str
    on_device: int
    on_cpu: Counter[str]

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.on_device + self.on_cpu.total()


def place_nodes(folder: ModelDir, device: Device) -> list[Placement]:
    """Load each graph of a model on a device, one after the other. Raises Phi3VError."""
    if row_of(device).plugin is not None:
        require_free_graphs(folder, row_of(device))
    files = graph_files(folder)
    return [_place(graph, files[graph], folder, device) for graph in ("vision", "embedding", "decoder")]


def _place(name: str, file: Path, folder: ModelDir, device: Device) -> Placement:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(_RECORD, "1")
    providers = _add_provider(options, folder, device)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as exc:  # ONNX Runtime's errors have no class of their own to name
        raise ModelFolderError(f"{file} does not load on {device}: {str(exc).splitlines()[0]}") from exc
    kinds: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        kinds.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    on_cpu = kinds.pop(_CPU, Counter()) if device != "cpu" else Counter[str]()
    return Placement(name, sum(counted.total() for counted in kinds.values()), on_cpu)


def _add_provider(options: Any, folder: ModelDir, device: Device) -> list[str] | None:
    """Name the device's provider in the options of a session, or return it, as ONNX Runtime wants it."""
    row = row_of(device)
    if row.plugin is None:
        return ["CUDAExecutionProvider", _CPU] if device == "cuda" else [_CPU]
    part = split_device(device)[1]
    there = [d for d in plugin_devices(row.plugin) if not part or openvino_part(dict(d.ep_metadata)) == part]
    chosen = {name: value for name, value in provider_options(row, folder, device).items() if name != row.part_option}
    options.add_provider_for_devices(there[:1], chosen)
    return None
