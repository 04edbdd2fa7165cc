"""A model folder with something wrong in it is refused by the name of the file that is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi3v.errors import ModelFolderError
from phi3v.models.folder import ModelDir

CONFIG, PROCESSOR, MANIFEST = "genai_config.json", "processor_config.json", "phi3v.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files a load looks at; the graphs need no content for that."""
    path = tmp_path / "model"
    path.mkdir()
    for name in ("vision.onnx", "embedding.onnx", "text.onnx", "tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes(b"{}")
    decoder = {
        "filename": "text.onnx",
        "session_options": {"provider_options": []},
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "head_size": 16,
    }
    vision, embedding = {"filename": "vision.onnx"}, {"filename": "embedding.onnx"}
    model = {"type": "phi3v", "context_length": 4096, "vocab_size": 512, "eos_token_id": [2]}
    model |= {"decoder": decoder, "vision": vision, "embedding": embedding}
    (path / CONFIG).write_text(json.dumps({"model": model}))
    (path / PROCESSOR).write_text(
        json.dumps({"processor": {"transforms": [{"operation": {"attrs": {"num_crops": 4}}}]}})
    )
    (path / MANIFEST).write_text(json.dumps({"device": "cpu", "pixel_dtype": "float32", "files": {}}))
    return path


def crops(value: object) -> Callable[[Any], object]:
    return lambda content: content["processor"]["transforms"][0]["operation"]["attrs"].update(num_crops=value)


def limit(**values: object) -> Callable[[Any], object]:
    return lambda content: content["model"].update(values)


def stated(**values: object) -> Callable[[Any], object]:
    return lambda content: content.update(values)


def test_a_folder_opens_with_its_limits(folder: Path) -> None:
    model = ModelDir.open(folder)
    assert (model.num_crops, model.vocab_size, model.context_length, model.built_for) == (4, 512, 4096, "cpu")
    assert model.kv_bytes(10) == 10 * 2 * 2 * 4 * 16 * 4


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (CONFIG, limit(context_length="abc"), "abc"),
        (CONFIG, limit(context_length=float("inf")), "infinity"),
        (CONFIG, limit(context_length=None), "NoneType"),
        (CONFIG, limit(eos_token_id=[[1]]), "unhashable"),
        (CONFIG, lambda content: content["model"].pop("vocab_size"), "vocab_size"),
        (CONFIG, lambda content: content["model"]["decoder"].pop("session_options"), "session_options"),
        (PROCESSOR, lambda content: content.clear(), "lacks 'processor'"),
        (PROCESSOR, crops(0), "num_crops is 0; allowed: 1 to 16"),
        (PROCESSOR, crops(32), "num_crops is 32; allowed: 1 to 16"),
        (PROCESSOR, crops("abc"), "abc"),
        (MANIFEST, stated(kv_bytes_per_token="x"), "kv_bytes_per_token"),
        (MANIFEST, stated(original_context_length="4096"), "original_context_length"),
        (MANIFEST, stated(pixel_dtype="junk"), "float16, float32"),
        (MANIFEST, stated(device="tpu"), "cpu, cuda"),
        (MANIFEST, stated(files=[]), "files"),
    ],
)
def test_a_wrong_value_is_named_with_its_own_file(
    folder: Path, name: str, change: Callable[[Any], object], said: str
) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=said) as caught:
        ModelDir.open(folder)
    assert str(folder / name) in str(caught.value)


def test_past_the_switch_is_longer_than_the_original_context(folder: Path) -> None:
    plain = ModelDir.open(folder)
    assert plain.original_context_length is None
    assert not plain.past_switch(4096)
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["context_length"] = 131072
    (folder / CONFIG).write_text(json.dumps(config))
    switching = ModelDir.open(folder)
    assert [switching.past_switch(length) for length in (1, 4096, 4097)] == [False, False, True]


def test_nesting_without_end_is_no_readable_json(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(ModelFolderError, match=r"phi3v\.json is not readable JSON"):
        ModelDir.open(folder)


def test_a_path_that_is_not_utf8_is_named_as_the_cause(folder: Path) -> None:
    odd = os.fsencode(folder.parent) + b"/m\xff"
    os.rename(folder, odd)  # noqa: PTH104
    with pytest.raises(ModelFolderError, match="not valid UTF-8"):
        ModelDir.open(os.fsdecode(odd))


PIXELS = {
    # A graph's input as protobuf states it: its name, and the element type that is its last byte.
    dtype: b"\x0a\x0cpixel_values\x12\x08\x0a\x06\x08" + code
    for dtype, code in (("float32", b"\x01"), ("float16", b"\x0a"))
}


@pytest.mark.parametrize(("pixels", "device"), [("float16", "cuda"), ("float32", "cpu")])
def test_a_published_folder_without_a_manifest_is_for_cuda_if_its_pixels_are_of_half_precision(
    folder: Path, pixels: str, device: str
) -> None:
    (folder / MANIFEST).unlink()
    (folder / "vision.onnx").write_bytes(PIXELS[pixels])
    model = ModelDir.open(folder)
    assert (model.pixel_dtype, model.built_for) == (pixels, device)
    assert model.kv_bytes(1) == 2 * 2 * 4 * 16 * (2 if device == "cuda" else 4)


def test_half_precision_for_the_cpu_is_what_its_manifest_says(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps({"device": "cpu", "pixel_dtype": "float16"}))
    assert ModelDir.open(folder).built_for == "cpu"


@pytest.mark.parametrize(
    ("stated_ids", "vocab_size", "ends"),
    [
        (32007, 32064, {32000, 32001, 32007}),
        (2, 512, {2}),
        ([32007, 32000], 32064, {32007, 32000}),
    ],
)
def test_a_single_end_token_is_not_all_that_ends_an_answer(
    folder: Path, stated_ids: object, vocab_size: int, ends: set[int]
) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["model"].update(eos_token_id=stated_ids, vocab_size=vocab_size)
    (folder / CONFIG).write_text(json.dumps(config))
    assert ModelDir.open(folder).eos_token_ids == ends
