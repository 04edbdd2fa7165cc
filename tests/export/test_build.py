"""A build ends with a complete model folder or with none, says how far it is, and prints nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from platforms import needs_posix
from processes import started

from phi3v.errors import CheckpointError, DiskSpaceError, MissingDependencyError, ModelFolderError, OptionError
from phi3v.export import build
from phi3v.export.build import export_model
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import EMBED, LM_HEAD
from phi3v.export.precision import folder_bytes, recipe
from phi3v.export.synthetic import require_random_checkpoint, require_random_model, tiny_dims, write_random_checkpoint
from phi3v.models.folder import ModelDir
from phi3v.models.graph_file import has_control_flow

pytestmark = pytest.mark.torch


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_folder_opens_as_a_model(int4_model: Path) -> None:
    model = ModelDir.open(int4_model)
    assert (model.precision, model.built_for, model.pixel_dtype) == ("int4", "cpu", "float32")
    assert model.synthetic
    assert model.original_context_length == 256
    assert model.kv_bytes_per_token == 2 * 2 * 64 * 4


def test_manifest_lists_every_other_file_with_its_size(int4_model: Path) -> None:
    manifest = json.loads((int4_model / "phi3v.json").read_text())
    assert manifest["files"] == {f.name: f.stat().st_size for f in int4_model.iterdir() if f.name != "phi3v.json"}
    assert {name for name in manifest["files"] if ".onnx" in name} == {
        f"{stem}.onnx{end}" for stem in ("vision", "embedding", "text") for end in ("", ".data")
    }
    assert manifest["block_size"] == 128


def test_special_ids_come_from_the_tokenizer(int4_model: Path) -> None:
    model = json.loads((int4_model / "genai_config.json").read_text())["model"]
    tokenizer = json.loads((int4_model / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert model["eos_token_id"] == [ids["<|end|>"], ids["<|endoftext|>"], ids["<|assistant|>"]]
    assert model["pad_token_id"] == ids["<|endoftext|>"]
    assert model["bos_token_id"] == 1


def test_progress_counts_every_byte_once(checkpoint_dir: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    export_model(checkpoint_dir, tmp_path / "out", prefill="int4", progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == ["vision", "embedding", "decoder"]
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1] == calls[-1][2] == Checkpoint.open(checkpoint_dir).nbytes


def test_nothing_is_printed_and_nothing_else_is_left(
    checkpoint_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_model(checkpoint_dir, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(build, "write_manifest", fail)
    with pytest.raises(error):
        export_model(checkpoint_dir, tmp_path / "out")
    assert names(tmp_path) == []


_EXPORT_AND_HANG = """
import sys, time
from phi3v.export.build import export_model
def hang(stage, done, total):
    if stage == "decoder":
        print("decoder", flush=True)
        time.sleep(60)
export_model(sys.argv[1], sys.argv[2], progress=hang)
"""


@needs_posix
@pytest.mark.slow
def test_killed_build_leaves_no_folder_that_loads_and_the_next_one_cleans_up(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", _EXPORT_AND_HANG, str(checkpoint_dir), str(out)]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoder\n"
        os.kill(process.pid, signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.partial-")
    with pytest.raises(ModelFolderError, match=r"genai_config\.json is missing"):
        ModelDir.open(left)
    export_model(checkpoint_dir, out)
    assert names(tmp_path) == ["out"]


def test_full_disk_is_refused_before_anything_is_written(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskSpaceError, match=r"0\.0 GB free and the model needs"):
        export_model(checkpoint_dir, tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize("precision", ["int4", "fp32"])
def test_estimated_size_covers_the_folder_closely(
    checkpoint: Checkpoint, request: pytest.FixtureRequest, precision: str
) -> None:
    folder = request.getfixturevalue(f"{precision}_model")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size <= folder_bytes(checkpoint.dims, recipe(precision, "cpu")) <= 1.05 * size + (4 << 20)


def test_taken_folder_is_refused_and_overwritten_on_request(checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "genai_config.json").write_text("{}")
    (out / "old.txt").write_text("an older build's")
    with pytest.raises(ModelFolderError, match="not empty"):
        export_model(checkpoint_dir, out)
    assert (out / "old.txt").exists()
    export_model(checkpoint_dir, out, overwrite=True)
    assert not (out / "old.txt").exists()
    assert names(tmp_path) == ["out"]


def test_overwriting_spares_what_is_no_model(checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "documents"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ModelFolderError, match="not a model folder"):
        export_model(checkpoint_dir, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "keep"


def test_overwriting_spares_the_checkpoint_the_current_folder_and_what_is_around_them(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, work = tmp_path / "models" / "copy", tmp_path / "models" / "work"
    shutil.copytree(checkpoint_dir, copy)
    work.mkdir()
    for folder in (tmp_path / "models", copy, work):
        (folder / "genai_config.json").write_text("{}")
    monkeypatch.chdir(work)
    for out, said in (
        (copy, "what the build reads"),
        (work, "current"),
        (Path(), "current"),
        (tmp_path / "models", "holds"),
    ):
        with pytest.raises(ModelFolderError, match=said):
            export_model(copy, out, overwrite=True)
    assert sorted(names(tmp_path / "models")) == ["copy", "genai_config.json", "work"]


def test_the_second_of_two_builds_of_one_folder_is_refused(checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def finish_first(stage: str, done: int, total: int) -> None:
        if stage == "decoder" and not out.exists():
            out.mkdir()
            (out / "genai_config.json").write_text("the first one's")

    with pytest.raises(ModelFolderError, match="not empty"):
        export_model(checkpoint_dir, out, progress=finish_first)
    assert (out / "genai_config.json").read_text() == "the first one's"
    assert names(tmp_path) == ["out"]


@needs_posix
@pytest.mark.parametrize("name", ["file/out", "/proc/nowhere/out", "x" * 300])
def test_a_folder_that_cannot_be_made_is_an_error_of_ours(checkpoint_dir: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFolderError, match="cannot be made"):
        export_model(checkpoint_dir, tmp_path / name)


def test_a_name_that_reads_like_a_pattern_is_a_name(checkpoint_dir: Path, tmp_path: Path) -> None:
    assert ModelDir.open(export_model(checkpoint_dir, tmp_path / "a**b")).synthetic


@pytest.mark.parametrize("part", ["checkpoint", "model"])
def test_random_weights_never_replace_other_ones(tmp_path: Path, part: str) -> None:
    folder = tmp_path / part
    require, file, key = {
        "checkpoint": (require_random_checkpoint, "config.json", "phi3v_synthetic"),
        "model": (require_random_model, "phi3v.json", "synthetic"),
    }[part]
    require(folder)
    folder.mkdir()
    require(folder)
    for content in ("{}", "[]", "no JSON", json.dumps({key: "yes"})):
        (folder / file).write_text(content)
        with pytest.raises(ModelFolderError, match="give another folder"):
            require(folder)
    (folder / file).write_text(json.dumps({key: True}))
    require(folder)


def test_a_checkpoint_of_somebody_elses_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "phi3_v"}')
    with pytest.raises(ModelFolderError, match="no random weights"):
        write_random_checkpoint(tmp_path, tiny_dims())
    assert names(tmp_path) == ["config.json"]


def test_a_tied_model_uses_the_embedding_whatever_head_lies_beside_it(checkpoint_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint_dir, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tied = Checkpoint.open(copy)
    assert tied.tensors[LM_HEAD] == tied.tensors[EMBED]
    calls: list[tuple[str, int, int]] = []
    export_model(copy, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2]


def test_bad_checkpoint_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        export_model(tmp_path / "nowhere", tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "int3"}, "int4, int8, fp16, fp32"),
        ({"device": "tpu"}, "cpu, cuda"),
        ({"precision": "fp32", "device": "cuda"}, "fp16 or int4 on a GPU"),
        ({"block_size": 31}, "16, 32, 64, 128, 256"),
    ],
)
def test_impossible_options_name_the_alternatives(checkpoint_dir: Path, options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        export_model(checkpoint_dir, "unused", **options)


@pytest.mark.parametrize("precision", ["int4", "fp16"])
def test_cuda_folders_name_the_provider_and_half_precision_pixels(
    checkpoint_dir: Path, tmp_path: Path, precision: str
) -> None:
    model = ModelDir.open(export_model(checkpoint_dir, tmp_path / "out", precision=precision, device="cuda"))
    assert (model.built_for, model.pixel_dtype) == ("cuda", "float16")
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    for graph in ("decoder", "vision", "embedding"):
        options = config["model"][graph]["session_options"]["provider_options"]
        assert options == [{"cuda": {"enable_cuda_graph": "0"}}]


def test_cpu_folders_leave_vision_and_embedding_to_the_decoders_options(fp32_model: Path) -> None:
    config = json.loads((fp32_model / "genai_config.json").read_text())
    assert config["model"]["decoder"]["session_options"]["provider_options"] == []
    assert not any("session_options" in config["model"][graph] for graph in ("vision", "embedding"))


def test_missing_package_is_named_with_the_extra_that_brings_it(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai.models", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .phi3v\[cpu,export\]"):
        export_model(checkpoint_dir, tmp_path / "out")
    assert names(tmp_path) == []


def test_folder_is_built_within_seconds(checkpoint_dir: Path, tmp_path: Path) -> None:
    begin = time.perf_counter()
    export_model(checkpoint_dir, tmp_path / "out")
    assert time.perf_counter() - begin < 20


@pytest.mark.parametrize("precision", ["fp16", "fp32", "int4"])
def test_the_type_of_pixels_is_read_off_the_graph(
    request: pytest.FixtureRequest, precision: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(f"{precision}_model"), tmp_path / "model"))
    said = ModelDir.open(folder).pixel_dtype
    (folder / "phi3v.json").unlink()
    assert ModelDir.open(folder).pixel_dtype == said == ("float16" if precision == "fp16" else "float32")


@pytest.mark.parametrize(
    ("precision", "device", "built_for", "devices"),
    [
        ("int4", "cpu", "cpu", ("cpu", "webgpu", "openvino")),
        ("fp16", "cpu", "cpu", ("cpu", "webgpu")),
        ("fp32", "openvino", "cpu", ("cpu", "webgpu", "openvino")),
        ("fp32", "webgpu", "webgpu", ("webgpu",)),
        ("fp16", "webgpu", "webgpu", ("webgpu",)),
        ("fp16", "cuda", "cuda", ("cuda",)),
    ],
)
def test_a_folder_lists_the_devices_it_is_for(
    checkpoint_dir: Path, tmp_path: Path, precision: str, device: str, built_for: str, devices: tuple[str, ...]
) -> None:
    model = ModelDir.open(export_model(checkpoint_dir, tmp_path / "out", precision=precision, device=device))
    assert (model.built_for, model.devices) == (built_for, devices)


def test_a_folder_for_webgpu_computes_in_float16_and_holds_no_control_flow(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    folder = export_model(checkpoint_dir, tmp_path / "out", precision="int4", device="webgpu")
    model = ModelDir.open(folder)
    assert (model.pixel_dtype, model.kv_bytes_per_token) == ("float16", 2 * 2 * 64 * 2)
    assert not has_control_flow(folder / "text.onnx")
    sections = json.loads((folder / "genai_config.json").read_text())["model"]
    assert sections["decoder"]["session_options"]["provider_options"] == []
    assert not any("session_options" in sections[graph] for graph in ("vision", "embedding"))


def test_a_precision_that_a_device_cannot_run_is_refused_with_what_it_can(checkpoint_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"fp16 cannot run on openvino\. .* use int4 or fp32"):
        export_model(checkpoint_dir, tmp_path / "out", precision="fp16", device="openvino")
