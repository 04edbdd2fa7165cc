"""Which session options genai is given for each graph: those of a graph that is overlaid lose their providers."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from phi3v.genai import providers
from phi3v.genai.model import load_model
from phi3v.machine.cuda import Gpu
from phi3v.machine.device_table import Device
from phi3v.models.folder import ModelDir


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
    folder = cast(ModelDir, SimpleNamespace(path=Path("model")))
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
