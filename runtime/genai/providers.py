"""Tells genai's configuration of a model which execution provider to run on.

genai gives vision and embedding the decoder's providers and options, unless a folder's genai_config.json or an overlay
gives them some of their own: then they have only those. So nothing is overlaid for them except on the CPU.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DeviceError
from ..machine.cuda import gpus, install_command
from ..machine.device_table import Device, DeviceKind, row_of, split_device
from ..machine.plugins import plugin_library
from ..machine.webgpu import attention_on_cpu
from ..models.folder import GENAI_CONFIG, ModelDir
from ..models.graph_file import find_nodes

_GRAPHS = ("decoder", "vision", "embedding")
_ATTENTION = ("GroupQueryAttention", "MultiHeadAttention")

_FLASH, _MEMORY_EFFICIENT = 1, 2
"""Bits of the provider option `sdpa_kernel`: attention that may be used."""


def set_providers(
    og: ModuleType,
    config: Any,
    folder: ModelDir,
    device: Device,
    *,
    threads: int,
    cuda_graph: bool = False,
    sdpa_kernel: int | None = None,
) -> None:
    """Make `config` run all three graphs on one device. Raises DeviceError or MissingDependencyError."""
    row = row_of(device)
    if row.plugin is not None:
        require_free_graphs(folder, row)
        register(og, row)
    config.clear_providers()
    if row.provider is not None:
        config.append_provider(row.provider)
        for name, value in provider_options(row, folder, device, cuda_graph, sdpa_kernel).items():
            config.set_provider_option(row.provider, name, value)
    options = {"session_options": {"intra_op_num_threads": threads, **row.session_options}}
    graphs = _GRAPHS if row.provider is None else _GRAPHS[:1]
    config.overlay(json.dumps({"model": dict.fromkeys(graphs, options)}))


def require_free_graphs(folder: ModelDir, row: DeviceKind) -> None:
    """Refuse a folder that ties vision or embedding to another provider: genai lets nobody untie them."""
    sections = _read_sections(folder)
    tied = {
        name
        for graph in _GRAPHS[1:]
        for entry in sections[graph].get("session_options", {}).get("provider_options", [])
        for name in entry
    }
    if tied - {row.provider}:
        raise DeviceError(
            f"{folder.path} was made for {' and '.join(sorted(tied))}, and its {GENAI_CONFIG} ties its graphs to it; "
            f"make a folder with `phi3v export CHECKPOINT FOLDER --device {row.kind}`"
        )


def _read_sections(folder: ModelDir) -> dict[str, dict[str, Any]]:
    """What genai_config.json says of each graph."""
    model = json.loads((folder.path / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    return {graph: model[graph] for graph in _GRAPHS}


@cache
def _registered(og: ModuleType, name: str, library: str) -> None:
    og.register_execution_provider_library(name, library)


def register(og: ModuleType, row: DeviceKind) -> None:
    """Make genai know a plugin, once in a process. Raises DeviceError or MissingDependencyError."""
    assert row.plugin is not None
    try:
        _registered(og, row.plugin.name, str(plugin_library(row.plugin)))
    except RuntimeError as exc:
        if "already registered" in str(exc):  # by somebody else in this process
            return
        raise DeviceError(f"{row.plugin.distribution} does not load: {exc}; run: {install_command(row)}") from exc


def provider_options(
    row: DeviceKind, folder: ModelDir, device: Device, cuda_graph: bool = False, sdpa_kernel: int | None = None
) -> dict[str, str]:
    """What the execution provider is told about a model on a device."""
    options = dict(row.options)
    if row.part_option:
        options[row.part_option] = part = split_device(device)[1].upper()
        if folder.precision == "fp32":  # else OpenVINO computes in what is fastest: bfloat16, float16
            options["load_config"] = json.dumps({part: {"INFERENCE_PRECISION_HINT": "f32"}})
    if device == "cuda":
        options["enable_cuda_graph"] = "1" if cuda_graph else "0"
        if kernel := sdpa_kernel or _suitable_kernel():
            options["sdpa_kernel"] = str(kernel)
    if device == "webgpu" and attention_on_cpu(folder.pixel_dtype or "float32"):
        options["forceCpuNodeNames"] = "\n".join(_attention_nodes(folder))
    return options


def graph_files(folder: ModelDir) -> dict[str, Path]:
    """The file of each graph."""
    return {graph: folder.path / section["filename"] for graph, section in _read_sections(folder).items()}


def _attention_nodes(folder: ModelDir) -> list[str]:
    return [name for graph in graph_files(folder).values() for name in find_nodes(graph, _ATTENTION)]


def _suitable_kernel() -> int | None:
    """Flash attention on GPUs on which ONNX Runtime prefers cuDNN's; None leaves the choice to it.

    cuDNN's builds two plans for every new pair of prompt length and buffer length, and prompts differ in length.
    """
    first = next(iter(gpus()), None)
    return _FLASH | _MEMORY_EFFICIENT if first and int(first.compute_capability.split(".")[0]) >= 9 else None
