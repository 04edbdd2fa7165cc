"""Which session options genai is given for each graph: those of a graph that is overlaid lose their providers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from phi3v.errors import DeviceError
from phi3v.genai import providers
from phi3v.genai.model import load_model
from phi3v.machine.cuda import Gpu
from phi3v.machine.device_table import TABLE, Device
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.models.manifest import Manifest


class Config:
    """What genai's Config is told."""

    def __init__(self, path: str) -> None:
        self.providers = ["those of the file"]
        self.options: dict[str, str] = {}
        self.overlaid: dict[str, Any] = {}

    def clear_providers(self) -> None:
        self.providers.clear()

    def append_provider(self, name: str) -> None:
        self.providers.append(name)

    def set_provider_option(self, provider: str, name: str, value: str) -> None:
        self.options[name] = value

    def overlay(self, text: str) -> None:
        self.overlaid |= json.loads(text)["model"]


def configure(device: Device, **options: Any) -> Config:
    og = cast(ModuleType, SimpleNamespace(Config=Config, Model=lambda config: config))
    folder = cast(ModelDir, SimpleNamespace(path=Path("model"), int8_prefill=False, block_graphs={}, graphs={}))
    return cast(Config, load_model(og, folder, device, **options))


def test_on_a_gpu_only_the_decoder_is_overlaid() -> None:
    config = configure("cuda", threads=3)
    assert config.providers == ["cuda"]
    assert config.overlaid == {"decoder": {"session_options": {"intra_op_num_threads": 3}}}


def test_on_the_cpu_all_three_graphs_get_the_threads() -> None:
    config = configure("cpu", threads=3)
    assert config.providers == []
    options = {"session_options": {"intra_op_num_threads": 3}}
    assert config.overlaid == {"decoder": options, "embedding": options, "vision": options}


@pytest.mark.parametrize(("wanted", "value"), [(False, "0"), (True, "1")])
def test_a_cuda_graph_is_asked_of_the_decoder(wanted: bool, value: str) -> None:
    assert configure("cuda", cuda_graph=wanted).options["enable_cuda_graph"] == value


@pytest.mark.parametrize(("capability", "kernel"), [("8.9", None), ("9.0", "3"), ("12.0", "3")])
def test_flash_attention_is_asked_for_where_onnxruntime_would_take_cudnns(
    monkeypatch: pytest.MonkeyPatch, capability: str, kernel: str | None
) -> None:
    gpu = Gpu("a GPU", 1 << 30, driver_cuda="13.0", compute_capability=capability)
    monkeypatch.setattr(providers, "gpus", lambda: [gpu])
    assert configure("cuda").options.get("sdpa_kernel") == kernel
    assert configure("cuda", sdpa_kernel=8).options["sdpa_kernel"] == "8"


def test_without_a_gpu_the_kernel_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "gpus", list)
    assert "sdpa_kernel" not in configure("cuda").options


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plugins that genai is told of; their packages need not be here."""
    told: list[str] = []
    monkeypatch.setattr(providers, "register", lambda og, row: told.append(row.plugin.name))
    monkeypatch.setattr(providers, "attention_on_cpu", lambda _: False)
    return told


def of_folder(folder: Path, device: Device) -> Config:
    og = cast(ModuleType, SimpleNamespace(Config=Config, Model=lambda config: config))
    return cast(Config, load_model(og, ModelDir.open(folder), device, threads=3))


def test_webgpu_gets_all_three_graphs_through_the_decoders_options(plugins: list[str]) -> None:
    config = of_folder(BUILTIN, "webgpu")
    assert plugins == ["WebGpuExecutionProvider"]
    assert (config.providers, config.options) == (["WebGPU"], {})
    assert config.overlaid == {"decoder": {"session_options": {"intra_op_num_threads": 3}}}


def test_attention_that_is_left_to_the_cpu_is_named_node_by_node(
    plugins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "attention_on_cpu", lambda _: True)
    named = of_folder(BUILTIN, "webgpu").options["forceCpuNodeNames"].splitlines()
    assert len(named) == len(set(named)) == 8
    assert sum(name.endswith("/attn/GroupQueryAttention") for name in named) == 4
    assert sum(name.startswith("MultiHeadAttention_") for name in named) == 4


@pytest.mark.parametrize(
    ("device", "option"), [("openvino:cpu", "CPU"), ("openvino:gpu", "GPU"), ("openvino:npu", "NPU")]
)
def test_openvino_gets_its_part_and_onnxruntime_does_not_spin(plugins: list[str], device: Device, option: str) -> None:
    config = of_folder(BUILTIN, device)
    assert plugins == ["OpenVINOExecutionProvider"]
    assert (config.providers, config.options) == (["OpenVINO"], {"device_type": option})
    options = {"intra_op_num_threads": 3, "session.intra_op.allow_spinning": "0"}
    assert config.overlaid == {"decoder": {"session_options": options}}


def test_openvino_computes_a_build_in_fp32_in_fp32(plugins: list[str], tmp_path: Path) -> None:
    """By itself it takes bfloat16 where the CPU has it, and float16 on a GPU."""
    folder = Path(shutil.copytree(BUILTIN, tmp_path / "fp32"))
    replace(Manifest.read(folder), precision="fp32").write(folder)
    hint = json.loads(of_folder(folder, "openvino:gpu").options["load_config"])
    assert hint == {"GPU": {"INFERENCE_PRECISION_HINT": "f32"}}


@pytest.mark.parametrize("device", ["webgpu", "openvino:cpu"])
def test_a_folder_whose_graphs_are_tied_to_cuda_is_refused_with_the_export_that_helps(
    plugins: list[str], tmp_path: Path, device: Device
) -> None:
    folder = Path(shutil.copytree(BUILTIN, tmp_path / "cuda"))
    file = folder / "genai_config.json"
    config = json.loads(file.read_text())
    config["model"]["vision"]["session_options"] = {"provider_options": [{"cuda": {}}]}
    file.write_text(json.dumps(config))
    (folder / "phi3v.json").unlink()
    with pytest.raises(DeviceError, match=rf"was made for cuda, .* --device {device.partition(':')[0]}`"):
        of_folder(folder, device)
    assert plugins == []


def test_a_plugin_is_registered_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    og = ModuleType("genai")
    og.register_execution_provider_library = lambda *what: calls.append(what)  # type: ignore[attr-defined]
    monkeypatch.setattr(providers, "plugin_library", lambda plugin: Path("lib.so"))
    for _ in range(2):
        providers.register(og, TABLE["webgpu"])
    assert calls == [("WebGpuExecutionProvider", "lib.so")]


def test_a_plugin_that_somebody_else_registered_is_used_and_one_that_does_not_load_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(reason: str) -> ModuleType:
        def register(*_: str) -> None:
            raise RuntimeError(reason)

        og = ModuleType("genai")
        og.register_execution_provider_library = register  # type: ignore[attr-defined]
        return og

    monkeypatch.setattr(providers, "plugin_library", lambda plugin: Path("lib.so"))
    providers.register(refuse("EP library is already registered under it"), TABLE["webgpu"])
    with pytest.raises(DeviceError, match=r"onnxruntime-ep-webgpu does not load: too old; run: pip install"):
        providers.register(refuse("too old"), TABLE["webgpu"])
