"""OpenVINO on the CPU: `.ci/extras openvino` says where the package comes from."""

from importlib.util import find_spec

import numpy as np
import pytest
from exports import Exports
from PIL import Image
from plugin_models import DIMS, SWITCH, ask, generate, last_logits

import phi3v
from phi3v.bench.reference import ReferenceModel
from phi3v.errors import DeviceError
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.nano.examples import EXAMPLES
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.placement import place_nodes
from phi3v.machine.openvino import openvino_devices, openvino_parts
from phi3v.models.folder import ModelDir

INSTALLED = find_spec("onnxruntime_ep_openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="needs onnxruntime-ep-openvino: .ci/extras openvino")
pytestmark = [pytest.mark.torch, pytest.mark.slow, needs_openvino]

SHOWN = [EXAMPLES[0], EXAMPLES[3], EXAMPLES[4]]
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8))


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_nanos_three_examples_have_the_answers_of_the_cpu(exports: Exports, precision: str) -> None:
    folder = exports.nano(precision)
    with phi3v.load(folder, "openvino") as engine, phi3v.load(folder, "cpu") as cpu:
        assert engine.device == f"openvino:{'gpu' if 'gpu' in openvino_parts() else 'cpu'}"
        for example in SHOWN:
            assert ask(engine, example) == ask(cpu, example) == example.answer


@pytest.fixture(scope="module")
def reference(exports: Exports) -> ReferenceModel:
    return ReferenceModel(Checkpoint.open(exports.checkpoint(**DIMS)))


@pytest.fixture(scope="module")
def backend(exports: Exports) -> GenaiBackend:
    return GenaiBackend(ModelDir.open(exports.model("fp32", device="openvino", **DIMS)), "openvino:cpu")


@pytest.mark.parametrize("crops", [0, 1, 4])
def test_logits_are_those_of_the_reference(backend: GenaiBackend, reference: ReferenceModel, crops: int) -> None:
    inputs = backend.preprocess("What is this?", [PICTURE] if crops else [], crops or 1)
    expected = reference.logits(inputs).numpy()[-1]
    assert np.abs(last_logits(backend, inputs) - expected).max() < 1e-3


def test_an_answer_that_crosses_the_switch_is_the_references(backend: GenaiBackend, reference: ReferenceModel) -> None:
    inputs = backend.preprocess("Describe this in " + "many " * 8 + "words", [PICTURE], 1)
    count = SWITCH - len(inputs.input_ids) + 8
    assert 8 < count < 80
    assert generate(backend, inputs, count) == reference.greedy(inputs, count)


def test_only_the_decoders_attention_is_left_to_onnxruntimes_cpu(backend: GenaiBackend) -> None:
    placed = {each.graph: each for each in place_nodes(backend.model, "openvino:cpu")}
    assert placed["decoder"].on_cpu == {"GroupQueryAttention": 2}
    assert not placed["vision"].on_cpu
    assert not placed["embedding"].on_cpu


def test_openvino_lists_the_cpu_by_its_name() -> None:
    parts = dict(openvino_devices())
    assert "cpu" in parts
    assert len(parts["cpu"]) > len("cpu")


def test_a_part_that_is_not_here_is_refused_with_what_is(exports: Exports) -> None:
    absent = next(part for part in ("npu", "gpu") if part not in openvino_parts())
    with pytest.raises(DeviceError, match=f"OpenVINO finds no {absent} here, only .*cpu"):
        phi3v.load(exports.nano("fp32"), f"openvino:{absent}")  # type: ignore[arg-type]


def test_a_model_in_float16_is_refused_with_what_openvino_takes() -> None:
    with pytest.raises(DeviceError, match="computes in float16, and openvino takes int4 and fp32 builds"):
        phi3v.load("nano", "openvino")


def test_auto_never_takes_openvino(exports: Exports) -> None:
    assert "openvino" in ModelDir.open(exports.nano("fp32")).devices
    with phi3v.load(exports.nano("fp32")) as engine:
        assert engine.device == "cpu"
