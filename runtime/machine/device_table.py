"""The one table of devices: what each needs, how genai is told to use it, and which models it runs.

Loads nothing, so the command line takes the names of devices from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import OptionError

Kind = Literal["cpu", "cuda", "webgpu", "openvino"]

Device = Literal["cpu", "cuda", "webgpu", "openvino:cpu", "openvino:gpu", "openvino:npu"]
"""Where a model runs, once that is decided."""

DeviceName = Literal[
    "auto",
    "cpu",
    "cuda",
    "cuda:0",
    "cuda:1",
    "cuda:2",
    "cuda:3",
    "cuda:4",
    "cuda:5",
    "cuda:6",
    "cuda:7",
    "webgpu",
    "openvino",
    "openvino:cpu",
    "openvino:gpu",
    "openvino:npu",
]
"""What a caller may ask for. "cuda:N" takes any number, of which type checkers know the first eight."""

DEVICE_VARIABLE = "PHI3V_DEVICE"
"""The environment variable that names the device when nobody else does."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """Whether a device can be used, and if not, why and what would help."""

    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plugin:
    """A package that brings an execution provider as a library to be registered.

    `module` finds the library, `name` is what ONNX Runtime calls the provider, and what it is registered as.
    """

    distribution: str
    module: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """One row of the table.

    `provider` is genai's name of the execution provider, None for its default. `builds` are the devices whose builds
    run here, best first, and `precisions` what can be exported for it. `parts` may follow the name behind a colon, for
    which `part_option` is the provider's option. `in_ram`: the KV cache lies in the machine's memory. `library` is one
    of the system's, by the start of `sys.platform`, and `install_library` how to get it.
    """

    kind: Kind
    title: str
    extra: str
    packages: tuple[str, ...]
    builds: tuple[Kind, ...]
    precisions: tuple[str, ...]
    provider: str | None = None
    plugin: Plugin | None = None
    parts: tuple[str, ...] = ()
    numbered: bool = False
    part_option: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    session_options: Mapping[str, str] = field(default_factory=dict)
    in_ram: bool = False
    library: Mapping[str, str] = field(default_factory=dict)
    install_library: str = ""

    @property
    def spelling(self) -> str:
        """What may be typed for it."""
        part = ":N" if self.numbered else ":" + "|".join(self.parts) if self.parts else ""
        return f"{self.kind}[{part}]" if part else self.kind


_CPU = DeviceKind(
    kind="cpu",
    title="the CPU",
    extra="cpu",
    packages=("onnxruntime-genai", "onnxruntime"),
    builds=("cpu",),
    precisions=("int4", "int8", "fp16", "fp32"),
    in_ram=True,
)
_CUDA = DeviceKind(
    kind="cuda",
    title="an NVIDIA GPU",
    extra="cuda",
    packages=("onnxruntime-genai-cuda", "onnxruntime-gpu"),
    builds=("cuda",),
    precisions=("int4", "fp16"),  # ONNX Runtime's fused CUDA attention takes float16 only
    provider="cuda",
    numbered=True,
    library={"linux": "libcuda.so.1", "win32": "nvcuda.dll"},
    install_library="install NVIDIA's driver",
)
_WEBGPU = DeviceKind(
    kind="webgpu",
    title="any GPU, through WebGPU",
    extra="webgpu",
    packages=("onnxruntime-ep-webgpu",),
    builds=("webgpu", "cuda", "cpu"),  # those for CUDA compute in float16, as a GPU should
    precisions=("int4", "fp16", "fp32"),
    provider="WebGPU",
    plugin=Plugin("onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu", "WebGpuExecutionProvider"),
    library={"linux": "libvulkan.so.1"},
    install_library="apt install libvulkan1 mesa-vulkan-drivers",
)
_OPENVINO = DeviceKind(
    kind="openvino",
    title="Intel's CPU, GPU or NPU, through OpenVINO",
    extra="openvino",
    packages=("onnxruntime-ep-openvino",),
    builds=("cpu",),
    precisions=("int4", "fp32"),  # it cannot convert QuickGelu in float16
    provider="OpenVINO",
    plugin=Plugin("onnxruntime-ep-openvino", "onnxruntime_ep_openvino", "OpenVINOExecutionProvider"),
    parts=("cpu", "gpu", "npu"),
    part_option="device_type",
    # Its threads and ONNX Runtime's would fight for the cores: 38 ms a step, 25 ms without (four layers of real width).
    session_options={"session.intra_op.allow_spinning": "0"},
    in_ram=True,  # GroupQueryAttention stays with the CPU provider
)

TABLE: Mapping[str, DeviceKind] = {row.kind: row for row in (_CPU, _CUDA, _WEBGPU, _OPENVINO)}
"""The rows by kind."""

PREFERENCE: tuple[Kind, ...] = ("cuda", "webgpu", "cpu")
"""What "auto" takes, of the devices that a model is for: the first that works. Never OpenVINO by itself."""

SPELLINGS = ("auto", *(row.spelling for row in TABLE.values()))
"""What may be typed for a device, as in a command's help."""


def row_of(device: str) -> DeviceKind:
    """The row of a device: "openvino:gpu" has OpenVINO's."""
    return TABLE[device.partition(":")[0]]


def suited_devices(built_for: str, precision: str) -> tuple[str, ...]:
    """The kinds of devices that a build for one of them runs on, that one first."""
    rows = [row for row in TABLE.values() if built_for in row.builds and precision in row.precisions]
    return tuple(sorted((row.kind for row in rows), key=lambda kind: kind != built_for))


def split_device(name: object) -> tuple[str, str]:
    """A name as a caller gives it, in its kind (or "auto") and what stands behind the colon. Raises OptionError."""
    kind, _, part = name.partition(":") if isinstance(name, str) else ("", "", "")
    row = TABLE.get(kind)
    if name == "auto" or name in TABLE:
        return kind, ""
    if row is not None and (part in row.parts or (row.numbered and re.fullmatch(r"[0-9]{1,3}", part))):
        return kind, str(int(part)) if row.numbered else part
    raise OptionError(f"device is {name!r}; allowed: {', '.join(SPELLINGS)}")
