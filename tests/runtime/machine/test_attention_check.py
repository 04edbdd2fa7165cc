"""The attention that every WebGPU adapter must compute: a valid graph, and right on the CPU."""

from typing import Any

import numpy as np
import pytest

from phi3v.machine import attention_check
from phi3v.machine.attention_check import attend, attention_graph, find_attention_fault
from phi3v.machine.vulkan import vulkan_adapters


@pytest.fixture(scope="module")
def cpu() -> list[Any]:
    import onnxruntime

    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == "CPUExecutionProvider"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_cpu_computes_it_rightly(cpu: list[Any], dtype: str) -> None:
    assert find_attention_fault(cpu, dtype) is None


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_result_that_is_off_is_a_fault(
    cpu: list[Any], monkeypatch: pytest.MonkeyPatch, dtype: str, causal: bool
) -> None:
    """Either attention alone is enough."""

    def off(inputs: dict[str, Any], *, causal: bool) -> Any:
        right = attend(inputs, causal=causal)
        right[0, -1, -1] += 0.5 * (causal is wrong)
        return right

    wrong = causal
    monkeypatch.setattr(attention_check, "attend", off)
    fault = find_attention_fault(cpu, dtype)
    assert fault is not None
    assert fault.runs
    assert fault.text == f"attention over 64 tokens in {dtype} is off by 0.5"


def test_nan_is_a_fault(cpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_check, "attend", lambda inputs, causal: np.full_like(inputs["q"], np.nan))
    fault = find_attention_fault(cpu, "float32")
    assert fault is not None
    assert "off by nan" in fault.text


def test_what_does_not_run_is_a_fault_with_its_reason(cpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_check, "attention_graph", lambda _: b"no graph")
    fault = find_attention_fault(cpu, "float32")
    assert fault is not None
    assert not fault.runs
    assert fault.text.startswith("attention in float32 does not run: ")


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_graph_is_valid(dtype: str) -> None:
    import onnx

    model = onnx.load_from_string(attention_graph(dtype))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["GroupQueryAttention", "MultiHeadAttention"]


def test_without_a_vulkan_loader_there_is_no_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi3v.machine.vulkan._LOADER", "libvulkan-that-is-not-here.so.1")
    assert vulkan_adapters() == []
