"""The engine on the real genai with a tiny random model: limits, streams, errors, and what stays usable after them."""

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from exports import Exports
from PIL import Image
from platforms import needs_proc

import phi3v
from phi3v.errors import (
    ContextLengthError,
    InferenceError,
    MissingDependencyError,
    ModelFolderError,
    ModelNotFoundError,
    OldLayoutError,
    OptionError,
    PromptError,
)
from phi3v.genai.backend import GenaiBackend
from phi3v.models.folder import ModelDir

pytestmark = pytest.mark.torch

PICTURE = np.full((100, 200, 3), 90, dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(exports: Exports) -> Path:
    return exports.model("fp32", seed=1, layers=4, context=8192)


@pytest.fixture(scope="module")
def engine(folder: Path) -> phi3v.Engine:
    return phi3v.load(folder, "cpu")


def test_max_new_tokens_is_reported_as_length(engine: phi3v.Engine) -> None:
    result = engine.generate("hi", [PICTURE], max_new_tokens=5, num_crops=1)
    assert (result.finish_reason, result.usage.completion_tokens) == ("length", 5)
    assert result.usage.image_tokens == 313
    assert result.timings.decode_tokens == 4
    assert result.timings.ttft_s > 0


def test_the_streamed_text_is_the_generated_text(engine: phi3v.Engine) -> None:
    with engine.stream("hi", [PICTURE], max_new_tokens=12, num_crops=1) as stream:
        text = "".join(token.text for token in stream)
    assert text == stream.result.text == engine.generate("hi", [PICTURE], max_new_tokens=12, num_crops=1).text


def test_a_result_read_too_early_explains_itself(engine: phi3v.Engine) -> None:
    with engine.stream("hi", max_new_tokens=5) as stream, pytest.raises(InferenceError, match="iterate"):
        _ = stream.result


def test_a_cancelled_answer_keeps_its_text(engine: phi3v.Engine) -> None:
    stream = engine.stream("hi", max_new_tokens=50)
    first = next(iter(stream))
    stream.cancel()
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.token_ids == (first.id,)


def test_a_cancelled_answer_keeps_what_a_stop_string_held_back(engine: phi3v.Engine) -> None:
    whole = engine.generate("hi", max_new_tokens=6).text
    stream = engine.stream("hi", max_new_tokens=6, stop=[whole[:3] + "never comes"])
    tokens = iter(stream)
    for _ in range(5):
        next(tokens)
    stream.cancel()
    assert stream.result.text == engine.generate("hi", max_new_tokens=5).text


def test_cancelling_from_another_thread_ends_the_readers_loop(folder: Path) -> None:
    endless = replace(ModelDir.open(folder), eos_token_ids=frozenset())
    with phi3v.Engine(GenaiBackend(endless, "cpu")) as engine:
        for delay in (0.0, 0.003, 0.01, 0.03):
            stream = engine.stream("hi", max_new_tokens=8000)
            canceller = threading.Timer(delay, stream.cancel)
            canceller.start()
            text = "".join(token.text for token in stream)
            canceller.join()
            assert stream.result.finish_reason == "cancelled"
            assert stream.result.text.startswith(text)


def test_a_top_k_beyond_the_vocabulary_means_all_of_it(engine: phi3v.Engine) -> None:
    def ask(top_k: int) -> tuple[int, ...]:
        return engine.generate("hi", max_new_tokens=8, temperature=1.0, top_p=0.9, seed=3, top_k=top_k).token_ids

    assert ask(100_000) == ask(2**40) == ask(0)


def test_sampling_repeats_with_the_seed(engine: phi3v.Engine) -> None:
    def ask(seed: int) -> tuple[int, ...]:
        options = {"temperature": 1.0, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.2}
        return engine.generate("hi", [PICTURE], num_crops=1, max_new_tokens=12, seed=seed, **options).token_ids  # type: ignore[arg-type]

    assert ask(3) == ask(3)
    assert ask(3) != ask(4)


def test_a_stop_string_ends_the_answer(engine: phi3v.Engine) -> None:
    whole = engine.generate("hi", max_new_tokens=30).text
    stop = whole[3:5]
    result = engine.generate("hi", max_new_tokens=30, stop=[stop])
    assert result.finish_reason == "stop"
    assert result.text == whole[: whole.find(stop)]


def test_a_request_beyond_the_context_is_refused_with_its_numbers(engine: phi3v.Engine) -> None:
    with pytest.raises(ContextLengthError, match=r"313 of images.*8192.*lower max_new_tokens below \d+"):
        engine.generate("hi", [PICTURE], max_new_tokens=8000, num_crops=1)


def test_the_text_counts_too(engine: phi3v.Engine) -> None:
    with pytest.raises(ContextLengthError, match=r"\d+ of text, 313 of images.*lower max_new_tokens to \d+"):
        engine.generate("many words " * 100, [PICTURE], max_new_tokens=7870, num_crops=1)


def test_too_many_pictures_are_refused_before_one_is_read(engine: phi3v.Engine) -> None:
    with pytest.raises(ContextLengthError, match="at least"):
        engine.generate("hi", ["absent.png"] * 27, max_new_tokens=1)


def test_too_large_pictures_are_refused_before_they_are_cut(
    engine: phi3v.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GenaiBackend, "preprocess", None)
    with pytest.raises(ContextLengthError, match=f"at least {4 * 2353 + 1} tokens"):
        engine.generate("hi", [np.zeros((1080, 1920, 3), np.uint8)] * 4, max_new_tokens=1, num_crops=16)


def test_auto_gives_each_picture_the_crops_it_needs(engine: phi3v.Engine) -> None:
    pictures = [np.zeros((200, 300, 3), np.uint8), np.zeros((480, 640, 3), np.uint8)]
    assert engine.generate("hi", pictures, max_new_tokens=1, num_crops="auto").usage.image_tokens == 313 + 757
    with pytest.raises(OptionError, match="1 to 16, or 'auto'"):
        engine.generate("hi", pictures, num_crops="most")  # type: ignore[arg-type]


def test_twenty_pictures_fit_or_are_refused(engine: phi3v.Engine) -> None:
    assert engine.generate("hi", [PICTURE] * 20, max_new_tokens=2, num_crops=1).usage.image_tokens == 20 * 313
    with pytest.raises(ContextLengthError):
        engine.generate("hi", [PICTURE] * 20, max_new_tokens=2, num_crops=16)


@pytest.mark.parametrize(
    "options", [{"num_crops": 17}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"stop": "x"}], ids=str
)
def test_options_out_of_range_name_what_is_allowed(engine: phi3v.Engine, options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="allowed"):
        engine.generate("hi", **options)  # type: ignore[arg-type]


def test_the_engine_is_usable_after_errors(engine: phi3v.Engine) -> None:
    before = engine.generate("hi", [PICTURE], max_new_tokens=4, num_crops=1).token_ids
    for prompt, picture in (("hi", b"garbage"), ("\ud800", PICTURE), ("<|image_7|>", PICTURE)):
        with pytest.raises(phi3v.Phi3VError):
            engine.generate(prompt, [picture], num_crops=1)
    assert engine.generate("hi", [PICTURE], max_new_tokens=4, num_crops=1).token_ids == before


def test_genais_own_processor_runs_beside_ours(folder: Path) -> None:
    with phi3v.load(folder, "cpu", processor="genai") as engine:
        result = engine.generate("hi", [Image.new("RGB", (300, 300))], max_new_tokens=3)
        assert result.usage.image_tokens == 2509
        with pytest.raises(OptionError, match="always 16"):
            engine.generate("hi", [PICTURE], num_crops=4)
        with pytest.raises(PromptError, match="control"):
            engine.generate("<|end|>", [PICTURE])


def test_genais_own_processor_ignores_the_folders_number_of_crops(folder: Path, tmp_path: Path) -> None:
    few = copy_of(folder, tmp_path)
    text = (few / "processor_config.json").read_text()
    (few / "processor_config.json").write_text(text.replace('"num_crops": 16', '"num_crops": 4'))
    (few / "phi3v.json").unlink()
    with phi3v.load(few, "cpu", processor="genai") as engine:
        assert engine.generate("hi", [PICTURE], max_new_tokens=1).usage.image_tokens > 757
        with pytest.raises(OptionError, match="always 16"):
            engine.generate("hi", [PICTURE], num_crops=4)


@pytest.mark.parametrize("processor", ["phi3v", "genai"])
@pytest.mark.parametrize("images", [[], [PICTURE]], ids=["text", "picture"])
def test_a_closed_engine_and_bad_unicode_are_errors_of_ours(
    folder: Path, processor: Literal["phi3v", "genai"], images: list[np.ndarray]
) -> None:
    with phi3v.load(folder, "cpu", processor=processor) as engine, pytest.raises(PromptError, match="surrogate"):
        engine.generate("\ud800", images)
    with pytest.raises(InferenceError, match="closed"):
        engine.generate("hi", images)


def test_a_folder_built_for_cuda_runs_on_the_cpu_under_the_cpus_limits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = copy_of(folder, tmp_path)
    manifest = json.loads((built / "phi3v.json").read_text())
    (built / "phi3v.json").write_text(json.dumps(manifest | {"device": "cuda"}))
    with phi3v.load(built, "cpu") as engine:
        assert (engine.device, engine.model.built_for) == ("cpu", "cuda")
        monkeypatch.setattr("phi3v.prepare.available_memory", lambda: 1)
        with pytest.raises(ContextLengthError, match="memory left"):
            engine.generate("hi", max_new_tokens=1)


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


@pytest.mark.parametrize("name", ["vision.onnx", "text.onnx.data", "tokenizer.json", "genai_config.json"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    broken = copy_of(folder, tmp_path)
    (broken / name).unlink()
    with pytest.raises(ModelFolderError, match=name):
        phi3v.load(broken)


@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_file_is_refused(folder: Path, tmp_path: Path, manifest: bool) -> None:
    broken = copy_of(folder, tmp_path)
    data = broken / "text.onnx.data"
    os.truncate(data, data.stat().st_size // 2)
    if not manifest:
        (broken / "phi3v.json").unlink()
    with pytest.raises(ModelFolderError, match="again"):
        phi3v.load(broken)


def test_the_old_layout_is_named_as_such(folder: Path, tmp_path: Path) -> None:
    old = copy_of(folder, tmp_path)
    config = json.loads((old / "genai_config.json").read_text())
    config["model"]["vision"]["outputs"] = {"visual_features": "visual_features"}
    (old / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(OldLayoutError, match="phi3v migrate"):
        phi3v.load(old)


def test_no_model_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PHI3V_MODEL", raising=False)
    monkeypatch.setattr("phi3v.models.local.BUILTIN", tmp_path / "not built in")
    with pytest.raises(ModelNotFoundError, match="PHI3V_MODEL"):
        phi3v.load()
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        phi3v.load(tmp_path / "absent")


def test_without_genai_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(MissingDependencyError, match=r"\[cpu\]"):
        phi3v.load(folder, "cpu")


@needs_proc
def test_loading_and_answering_opens_no_socket_and_switches_telemetry_off(folder: Path) -> None:
    code = (
        "import os, sys, threading, phi3v\n"
        "seen, done = set(), threading.Event()\n"
        "def watch():\n"
        "    while not done.is_set():\n"
        "        for fd in os.listdir('/proc/self/fd'):\n"
        "            try: target = os.readlink(f'/proc/self/fd/{fd}')\n"
        "            except OSError: continue\n"
        "            if target.startswith('socket:'): seen.add(target)\n"
        "thread = threading.Thread(target=watch); thread.start()\n"
        "with phi3v.load(sys.argv[1], 'cpu') as engine: engine.generate('hi', max_new_tokens=200)\n"
        "done.set(); thread.join()\n"
        "print(len(seen), os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True, text=True, check=True, env=env, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert run.stdout.split() == ["0", "1"]
