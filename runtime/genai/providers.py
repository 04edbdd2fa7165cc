"""Tells genai's configuration of a model which execution provider to run on.

genai gives vision and embedding the decoder's providers and options, unless a folder's genai_config.json or an overlay
gives them some of their own: then they have only those. So nothing is overlaid for them except on the CPU.
"""

from __future__ import annotations

import json
from functools import cache
from types import ModuleType
from typing import Any

from ..errors import DeviceError
from ..machine.cuda import gpus
from ..machine.device import attention_on_cpu
from ..machine.device_table import Device, DeviceKind, row_of, split_device
from ..machine.plugins import plugin_library
from ..models.folder import GENAI_CONFIG, ModelDir
from ..models.graph_file import find_nodes

_GRAPHS = ("decoder", "embedding", "vision")
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
        register(og, row)
    config.clear_providers()
    if row.provider is not None:
        config.append_provider(row.provider)
        for name, value in _provider_options(row, folder, device, cuda_graph, sdpa_kernel).items():
            config.set_provider_option(row.provider, name, value)
    options = {"session_options": {"intra_op_num_threads": threads, **row.session_options}}
    graphs = _GRAPHS if row.provider is None else _GRAPHS[:1]
    config.overlay(json.dumps({"model": dict.fromkeys(graphs, options)}))


@cache
def _registered(og: ModuleType, name: str, library: str) -> None:
    og.register_execution_provider_library(name, library)


def register(og: ModuleType, row: DeviceKind) -> None:
    """Make genai know a plugin, once in a process. Raises DeviceError or MissingDependencyError."""
    assert row.plugin is not None
    try:
        _registered(og, row.plugin.name, str(plugin_library(row.plugin)))
    except RuntimeError as exc:
        raise DeviceError(f"{row.plugin.distribution} does not load: {exc}; run: {row.install}") from exc


def _provider_options(
    row: DeviceKind, folder: ModelDir, device: Device, cuda_graph: bool, sdpa_kernel: int | None
) -> dict[str, str]:
    options = dict(row.options)
    if row.part_option:
        options[row.part_option] = split_device(device)[1].upper()
    if device == "cuda":
        options["enable_cuda_graph"] = "1" if cuda_graph else "0"
        if kernel := sdpa_kernel or _suitable_kernel():
            options["sdpa_kernel"] = str(kernel)
    if device == "webgpu" and attention_on_cpu(folder.pixel_dtype or "float32"):
        options["forceCpuNodeNames"] = "\n".join(_attention_nodes(folder))
    return options


def _attention_nodes(folder: ModelDir) -> list[str]:
    model = json.loads((folder.path / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    return [name for graph in _GRAPHS for name in find_nodes(folder.path / model[graph]["filename"], _ATTENTION)]


def _suitable_kernel() -> int | None:
    """Flash attention on GPUs on which ONNX Runtime prefers cuDNN's; None leaves the choice to it.

    cuDNN's builds two plans for every new pair of prompt length and buffer length, and prompts differ in length.
    """
    first = next(iter(gpus()), None)
    return _FLASH | _MEMORY_EFFICIENT if first and int(first.compute_capability.split(".")[0]) >= 9 else None
