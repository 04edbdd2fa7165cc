"""WebGPU on a software GPU, Chromium's SwiftShader: `.ci/extras webgpu` says where both come from.

It has no float16, and its attention is wrong, so these run in fp32 and int4, and phi3v leaves attention to the CPU. All
else is what a GPU gets: genai's device buffers, a KV cache on the device, copies, and every other kernel.
"""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from exports import Exports
from PIL import Image
from places import ROOT
from plugin_models import DIMS, SWITCH, ask, generate, last_logits
from processes import PATIENCE_S, PHI3V

import phi3v
from phi3v.bench.reference import ReferenceModel
from phi3v.errors import DeviceError
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.embedding import write_embedding
from phi3v.export.nano.examples import EXAMPLES
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.placement import place_nodes
from phi3v.machine import webgpu
from phi3v.machine.vulkan import Adapter
from phi3v.models.folder import ModelDir
from phi3v.models.manifest import Manifest

READY = find_spec("onnxruntime_ep_webgpu") is not None and os.environ.get(webgpu.ALLOW_SOFTWARE) == "1"
needs_webgpu = pytest.mark.skipif(not READY, reason="needs onnxruntime-ep-webgpu and a software GPU: .ci/extras webgpu")
pytestmark = [pytest.mark.torch, pytest.mark.slow, needs_webgpu]

SHOWN = [EXAMPLES[0], EXAMPLES[3], EXAMPLES[4]]
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def reference(exports: Exports) -> ReferenceModel:
    return ReferenceModel(Checkpoint.open(exports.checkpoint(**DIMS)))


@pytest.fixture(scope="module", params=["cpu", "webgpu"])
def backend(request: pytest.FixtureRequest, exports: Exports) -> GenaiBackend:
    """A small model in fp32, its graphs as made for the CPU and as made for WebGPU."""
    return GenaiBackend(ModelDir.open(exports.model("fp32", device=request.param, **DIMS)), "webgpu")


@pytest.fixture(scope="module")
def nano(exports: Exports) -> Path:
    return exports.nano("fp32")


def test_nanos_three_examples_have_the_answers_of_the_cpu(nano: Path) -> None:
    with phi3v.load(nano, "webgpu") as engine, phi3v.load(nano, "cpu") as cpu:
        assert (engine.device, cpu.device) == ("webgpu", "cpu")
        for example in SHOWN:
            assert ask(engine, example) == ask(cpu, example) == example.answer


def test_the_command_answers_on_webgpu(nano: Path) -> None:
    example = EXAMPLES[3]
    files = [str(ROOT / "examples" / name) for name in example.files]
    done = subprocess.run(
        [*PHI3V, "ask", "--no-warm", "--device", "webgpu", "--model", str(nano), example.question, *files],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.strip() == example.answer, done.stderr


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


def test_only_attention_and_sums_over_numbers_of_tokens_are_left_to_the_cpu(backend: GenaiBackend) -> None:
    left = Counter[str]()
    for placed in place_nodes(backend.model, "webgpu"):
        left += placed.on_cpu
    assert (left["GroupQueryAttention"], left["MultiHeadAttention"]) == (2, 2)
    assert not {kind for kind in left if re.search("MatMul|Gemm|Norm|Gelu|Softmax|Conv|Sigmoid", kind)}


def test_doctor_describes_the_adapter_and_where_nodes_run(nano: Path) -> None:
    command = [*PHI3V, "doctor", "--json", "--nodes", "--model", str(nano)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    webgpu_line = found["webgpu"]["detail"]
    about = r"onnxruntime-ep-webgpu 0\.4\.\d+, libvulkan\.so\.1, adapter SwiftShader .* \(\d+ MiB\), software; "
    assert re.match(about + r"attention over 64 tokens in float32 is off by 0\.\d+; no float16", webgpu_line)
    assert found["webgpu"]["status"] == "note"
    assert re.match(
        r"vision \d+ of \d+ \(CPU: .*\); embedding .*; decoder \d+ of \d+ \(CPU: ", found["webgpu nodes"]["detail"]
    )


def test_a_session_answers_as_fresh_runs_do(backend: GenaiBackend) -> None:
    engine = phi3v.Engine(backend)
    questions = ["What is this?", "What is that? Say more.", "hi"]
    with engine.session([PICTURE], num_crops=1) as session:
        found = [session.ask(question, max_new_tokens=8).token_ids for question in questions]
    fresh = [engine.generate(q, [PICTURE], num_crops=1, max_new_tokens=8).token_ids for q in questions]
    assert found == fresh


def test_a_batch_answers_as_single_runs_do(backend: GenaiBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start_batch = backend.start_batch
    monkeypatch.setattr(backend, "start_batch", lambda rows: started.append(len(rows)) or start_batch(rows))
    engine = phi3v.Engine(backend)
    asked = [("What is this?", [PICTURE]), ("A longer question than the other one", [PICTURE]), ("hi", [])]
    requests = [
        phi3v.GenerationRequest(prompt, images, num_crops=1, max_new_tokens=8)  # type: ignore[arg-type]
        for prompt, images in asked
    ]
    alone = [engine.stream_request(request).drain().token_ids for request in requests]
    assert backend.max_batch_size > 1
    together = engine.generate_batch(requests, batch_size=3)
    assert [outcome.token_ids for outcome in together] == alone  # type: ignore[union-attr]
    assert max(started) > 1


def test_int4_gives_the_cpus_logits_up_to_rounding(exports: Exports, tmp_path: Path) -> None:
    """Its table of embeddings is in float16, which this adapter lacks, so another one takes its place here."""
    made = exports.model("int4", **DIMS)
    with pytest.raises(DeviceError, match=r"SwiftShader .* cannot run this model: attention in float16 does not run"):
        phi3v.load(made, "webgpu")
    folder = Path(shutil.copytree(made, tmp_path / "int4"))
    types = {"dtype": np.float32, "table_dtype": np.float32}
    write_embedding(Checkpoint.open(exports.checkpoint(**DIMS)), folder / "embedding.onnx", device="cpu", **types)
    replace(Manifest.read(folder), precision=None).with_files_of(folder).write(folder)
    here, there = (GenaiBackend(ModelDir.open(folder), device) for device in ("webgpu", "cpu"))
    inputs = here.preprocess("What is this?", [], 1)
    found, expected = last_logits(here, inputs), last_logits(there, inputs)
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def test_this_adapters_attention_is_found_to_be_wrong() -> None:
    """Where this fails, SwiftShader or the provider was mended: then drop `attention_on_cpu`."""
    fault = webgpu.attention_fault("float32")
    assert fault is not None
    assert fault.runs
    assert fault.text.startswith("attention over 64 tokens in float32 is off by 0.")


def test_a_gpu_with_such_a_fault_is_refused_by_name(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webgpu, "find_adapter", lambda: Adapter("Radeon 760M", software=False))
    with pytest.raises(DeviceError, match=r"Radeon 760M computes wrongly \(attention over 64 tokens .* off by 0\.\d+"):
        phi3v.load(nano, "webgpu")
    with phi3v.load(nano) as engine:
        assert engine.device == "cpu"


def test_a_software_gpu_is_never_chosen_by_itself(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "webgpu" in ModelDir.open(nano).devices
    with phi3v.load(nano) as engine:
        assert engine.device == "cpu"
    monkeypatch.delenv(webgpu.ALLOW_SOFTWARE)
    with pytest.raises(DeviceError, match=r"the only adapter is SwiftShader .*, a CPU that plays a GPU"):
        phi3v.load(nano, "webgpu")


def test_a_model_in_float16_is_refused_by_name_where_the_adapter_has_none() -> None:
    with pytest.raises(DeviceError, match=r"SwiftShader .* cannot run this model: attention in float16 does not run"):
        phi3v.load("nano", "webgpu")
