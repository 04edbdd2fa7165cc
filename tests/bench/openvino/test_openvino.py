"""The OpenVINO folder gives the reference's tokens, and the subject measures what the others measure."""

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phi3v.bench.cases import PROMPT, Case
from phi3v.bench.run import SubjectSpec, run
from phi3v.errors import CheckpointError, MissingDependencyError, ModelFolderError, OptionError
from phi3v.export.build import export_model
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import ClipDims
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

MODULES = ("openvino_genai", "openvino_tokenizers", "nncf")
INSTALLED = all(find_spec(module) for module in MODULES)
needs_openvino = pytest.mark.skipif(
    not INSTALLED, reason="OpenVINO is not installed: pip install 'phi3v[bench-openvino]'"
)

SWITCH = 256
"""Where the checkpoint's LongRoPE switches factors."""

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
"""Without these OpenVINO computes in bf16 where it can and keeps the KV cache in 8 bits."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder behind a CLIP of the real width, the only one OpenVINO GenAI takes."""
    clip = ClipDims(intermediate_size=128, num_hidden_layers=2)
    dims = dataclasses.replace(tiny_dims(original_context=SWITCH, context=4096), clip=clip)
    path = tmp_path_factory.mktemp("openvino") / "checkpoint"
    return write_random_checkpoint(path, dims, dtype="float32", num_crops=1)


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    from phi3v.bench.openvino.folder import write_folder

    return write_folder(checkpoint, checkpoint.parent / "fp32", bits=32)


@pytest.fixture(scope="module")
def reference(checkpoint: Path):
    from phi3v.bench.reference import ReferenceModel

    return ReferenceModel(Checkpoint.open(checkpoint))


def exact_subject(folder: Path):
    from phi3v.bench.openvino.subject import OpenVinoSubject

    return OpenVinoSubject(folder, "cpu", **EXACT)


def prompt(question: str, *, with_image: bool) -> str:
    tag = "<|image_1|>\n" if with_image else ""
    return f"<|user|>\n{tag}{question}<|end|>\n<|assistant|>\n"


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


@needs_openvino
def test_text_gives_the_references_tokens(folder: Path, reference) -> None:
    answer = exact_subject(folder).answer(prompt(PROMPT, with_image=False), None, 24)
    inputs = reference.preprocess(PROMPT, [], 1)
    assert answer.prompt_tokens == len(inputs.input_ids)
    assert list(answer.ids) == reference.greedy(inputs, 24)


@needs_openvino
def test_a_text_beyond_the_longrope_switch_gives_the_references_tokens(folder: Path, reference) -> None:
    question = "Tell me more. " * 40
    inputs = reference.preprocess(question, [], 1)
    assert len(inputs.input_ids) > SWITCH
    answer = exact_subject(folder).answer(prompt(question, with_image=False), None, 12)
    assert list(answer.ids) == reference.greedy(inputs, 12)


@needs_openvino
@pytest.mark.parametrize(("width", "height"), [(336, 336), (500, 300), (120, 400)])
def test_one_crop_gives_the_references_tokens(folder: Path, reference, width: int, height: int) -> None:
    image = noise(width, height)
    answer = exact_subject(folder).answer(prompt(PROMPT, with_image=True), np.asarray(image), 16)
    inputs = reference.preprocess(PROMPT, [image], 1)
    assert answer.prompt_tokens == len(inputs.input_ids)
    assert list(answer.ids) == reference.greedy(inputs, 16)


@needs_openvino
def test_four_crops_give_the_references_tokens_once_the_whole_image_is_scaled_as_openvino_does(
    checkpoint: Path, reference, tmp_path: Path
) -> None:
    from phi3v.bench.openvino.folder import write_folder

    image = noise(700, 640)
    folder = write_folder(checkpoint, tmp_path / "four", bits=32, num_crops=4)
    answer = exact_subject(folder).answer(prompt(PROMPT, with_image=True), np.asarray(image), 16)
    inputs = reference.preprocess(PROMPT, [image], 4)
    assert answer.prompt_tokens == len(inputs.input_ids)
    crops = inputs.pixel_values[0]
    grid = crops[1:].reshape(2, 2, 3, 336, 336).transpose(2, 0, 3, 1, 4).reshape(3, 672, 672)
    crops[0] = scaled_as_openvino(grid)
    assert list(answer.ids) == reference.greedy(inputs, 16)


def scaled_as_openvino(whole: np.ndarray) -> np.ndarray:
    """Half the size, bicubic from the pixels' left upper corners: at exactly one half, every other pixel."""
    return whole[:, ::2, ::2]


@needs_openvino
def test_the_record_holds_openvino_beside_ours(checkpoint: Path, folder: Path) -> None:
    model = export_model(checkpoint, checkpoint.parent / "ours", precision="fp32")
    case = Case(200, 120, 1, 4)
    record = run(
        [SubjectSpec("ours", "ours", model), SubjectSpec("openvino", "openvino", folder)],
        [case],
        rounds=2,
        resident=True,
    )
    assert set(record.values("openvino", str(case), "ttft_s")) == {1, 2}
    assert record.values("openvino", str(case), "prepare_s") == {}
    own, theirs = ([s for s in record.content["samples"] if s["subject"] == label] for label in ("ours", "openvino"))
    assert len({s["tokens_digest"] for s in theirs}) == 1
    assert {s["decode_tokens"] for s in theirs} == {3}
    for count in ("prompt_tokens", "image_tokens"):
        assert {s[count] for s in theirs} == {s[count] for s in own}
    assert {"openvino", "openvino-genai"} <= set(record.content["packages"])


@needs_openvino
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_weights_answer_in_full_length(checkpoint: Path, tmp_path: Path, bits: int) -> None:
    from phi3v.bench.openvino.folder import write_folder
    from phi3v.bench.openvino.subject import OpenVinoSubject

    folder = write_folder(checkpoint, tmp_path / "out", bits=bits, group_size=32)
    fp32 = checkpoint.parent / "fp32" / "openvino_language_model.bin"
    assert (folder / fp32.name).stat().st_size < fp32.stat().st_size / (2 if bits == 4 else 1.5)
    image = np.asarray(noise(64, 48))
    assert len(OpenVinoSubject(folder, "cpu", threads=1).answer(prompt(PROMPT, with_image=True), image, 5).ids) == 5


@needs_openvino
def test_openvinos_own_reporting_is_off() -> None:
    from phi3v.bench.openvino.subject import import_openvino

    import_openvino()
    assert sys.modules["openvino_telemetry"] is None


@needs_openvino
def test_a_folder_that_holds_something_is_not_written_over(checkpoint: Path, folder: Path) -> None:
    from phi3v.bench.openvino.folder import write_folder

    with pytest.raises(OptionError, match="not empty"):
        write_folder(checkpoint, folder)


@needs_openvino
def test_another_width_of_clip_is_refused(tmp_path: Path) -> None:
    from phi3v.bench.openvino.folder import write_folder

    narrow = write_random_checkpoint(tmp_path / "narrow", tiny_dims())
    with pytest.raises(CheckpointError, match="CLIP is 64 wide; OpenVINO GenAI takes 1024 only"):
        write_folder(narrow, tmp_path / "out")


def test_a_case_of_other_crops_than_the_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"num_crops": 4}')
    spec = SubjectSpec("openvino", "openvino", tmp_path)
    assert spec.takes(Case(10, 10, 4, 2))
    assert not spec.takes(Case(10, 10, 16, 2))


def test_a_folder_that_is_no_openvino_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="phi3v bench openvino-folder"):
        SubjectSpec("openvino", "openvino", tmp_path).takes(Case(10, 10, 4, 2))


@pytest.mark.skipif(INSTALLED, reason="OpenVINO is installed")
def test_openvino_that_is_missing_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'phi3v\[bench-openvino\]'"):
        run([SubjectSpec("openvino", "openvino", tmp_path)], [Case(10, 10, 4, 2)])
