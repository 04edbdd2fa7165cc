"""A checkpoint is checked whole when it is opened; what is wrong is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from phi3v.errors import CheckpointError
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import EMBED, EMBED_ALIAS, ClipDims, ModelDims
from phi3v.export.safetensors_file import read_header, write_file
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch


@pytest.fixture
def copy(checkpoint_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint_dir, tmp_path / "copy")


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    parsed = json.loads(path.read_text())
    change(parsed)
    path.write_text(json.dumps(parsed))


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite a safetensors file with changed tensors."""
    tensors = {name: entry.read() for name, entry in read_header(path).items()}
    change(tensors)
    write_file(path, [(name, t.shape, t.dtype) for name, t in tensors.items()], tensors.__getitem__)


def last_shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[-1]


def test_every_tensor_reads_back_as_safetensors_reads_it(checkpoint: Checkpoint) -> None:
    from safetensors.numpy import load_file

    for file in {entry.path for entry in checkpoint.tensors.values()}:
        for name, values in load_file(file).items():
            np.testing.assert_array_equal(checkpoint.read(name), values)


def test_rows_of_a_tensor_read_alone(checkpoint: Checkpoint) -> None:
    np.testing.assert_array_equal(checkpoint.read(EMBED, slice(3, 9)), checkpoint.read(EMBED)[3:9])


def test_bfloat16_reads_without_torch(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "bf16", tiny_dims())
    assert Checkpoint.open(folder).read(EMBED).dtype == ml_dtypes.bfloat16


def test_single_file_checkpoint_opens(copy: Path) -> None:
    tensors = {}
    for file in sorted(copy.glob("*.safetensors")):
        tensors |= {name: entry.read() for name, entry in read_header(file).items()}
        file.unlink()
    (copy / "model.safetensors.index.json").unlink()
    shapes = [(name, t.shape, t.dtype) for name, t in tensors.items()]
    write_file(copy / "model.safetensors", shapes, tensors.__getitem__)
    assert Checkpoint.open(copy).read(EMBED).shape == (512, 64)


def test_embedding_is_found_under_its_vision_name(copy: Path) -> None:
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    shard = copy / index["weight_map"][EMBED]
    rewrite(shard, lambda tensors: tensors.update({EMBED_ALIAS: tensors.pop(EMBED)}))
    edit_json(
        copy / "model.safetensors.index.json",
        lambda index: index["weight_map"].update({EMBED_ALIAS: index["weight_map"].pop(EMBED)}),
    )
    assert Checkpoint.open(copy).read(EMBED).shape == (512, 64)


def test_clip_is_vit_large_when_the_config_does_not_say(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["img_processor"] = {"name": "clip_vision_model", "image_dim_out": 1024}
    assert ModelDims.from_config(config).clip == ClipDims(1024, 4096, 24, 16, 336, 14)


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_both_names_of_long_rope_are_read(copy: Path, kind: str) -> None:
    edit_json(copy / "config.json", lambda config: config["rope_scaling"].update(type=kind))
    rope = Checkpoint.open(copy).dims.decoder.long_rope
    assert rope is not None
    assert rope.original == 256


def test_num_crops_comes_from_the_preprocessor_config_and_else_is_16(copy: Path) -> None:
    edit_json(copy / "preprocessor_config.json", lambda config: config.update(num_crops=4))
    assert Checkpoint.open(copy).num_crops == 4
    (copy / "preprocessor_config.json").unlink()
    assert Checkpoint.open(copy).num_crops == 16


def delete_tensor(folder: Path) -> None:
    rewrite(last_shard(folder), lambda tensors: tensors.pop("lm_head.weight"))


def reshape_tensor(folder: Path) -> None:
    rewrite(last_shard(folder), lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"][:-1]}))


def cut_file(folder: Path) -> None:
    data = last_shard(folder).read_bytes()
    last_shard(folder).write_bytes(data[: len(data) // 2])


def cut_header(folder: Path) -> None:
    last_shard(folder).write_bytes(last_shard(folder).read_bytes()[:40])


def point_to_lfs(folder: Path) -> None:
    last_shard(folder).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def escape_folder(folder: Path) -> None:
    edit_json(folder / "model.safetensors.index.json", lambda index: index["weight_map"].update(x="../secret"))


def remove_layer_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def config(**values: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "config.json", lambda c: c.update(values))


def crops(value: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "preprocessor_config.json", lambda c: c.update(num_crops=value))


def rename_end(tokenizer: dict) -> None:
    for token in tokenizer["added_tokens"]:
        token["content"] = token["content"].replace("<|end|>", "<|nope|>")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (delete_tensor, "lm_head.weight"),
        (reshape_tensor, "lm_head.weight has the shape"),
        (cut_file, "truncated"),
        (cut_header, "truncated"),
        (point_to_lfs, "git lfs pull"),
        (escape_folder, "../secret"),
        (remove_layer_index, "neither model.safetensors"),
        (lambda folder: last_shard(folder).unlink(), "is missing"),
        (lambda folder: last_shard(folder).write_bytes(b""), "no safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: edit_json(folder / "config.json", lambda c: c.pop("hidden_size")), "hidden_size"),
        (lambda folder: edit_json(folder / "config.json", lambda c: c.update(hidden_act="gelu")), "hidden_act gelu"),
        (lambda folder: edit_json(folder / "config.json", lambda c: c.update(sliding_window=2047)), "sliding_window"),
        (lambda folder: edit_json(folder / "config.json", lambda c: c["rope_scaling"].update(type="yarn")), "yarn"),
        (lambda folder: edit_json(folder / "config.json", lambda c: c["rope_scaling"].pop("long_factor")), "long_fac"),
        (config(rope_scaling=[1]), "wrong kind"),
        (config(img_processor="clip"), "wrong kind"),
        (config(sliding_window="abc"), "abc"),
        (config(partial_rotary_factor="abc"), "abc"),
        (config(hidden_size=float("inf")), "infinity"),
        (config(hidden_size=0), "hidden_size 0"),
        (config(num_attention_heads=0), "num_attention_heads 0"),
        (config(num_hidden_layers=-1), "num_hidden_layers -1"),
        (config(num_hidden_layers=0), "num_hidden_layers 0"),
        (lambda folder: (folder / "config.json").write_text("[" * 200_000), "not readable JSON"),
        (lambda folder: edit_json(folder / "tokenizer.json", rename_end), r"no token <\|end\|>"),
        (lambda folder: edit_json(folder / "tokenizer.json", lambda t: t["model"].update(type="Zork")), "no readable"),
        (lambda folder: edit_json(folder / "tokenizer.json", lambda t: t.update(model=None)), "no readable"),
        (crops(0), "num_crops 0; allowed: 1 to 16"),
        (crops(32), "num_crops 32; allowed: 1 to 16"),
        (crops("abc"), "num_crops 'abc'"),
        (crops(None), "num_crops None"),
    ],
)
def test_bad_checkpoint_is_refused_by_name(copy: Path, damage: Callable[[Path], object], named: str) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=named):
        Checkpoint.open(copy)


def retype(folder: Path, name: str) -> None:
    """Call one tensor int8 in a shard's header, keeping the header's length."""
    shard = last_shard(folder)
    head, _, rest = shard.read_bytes().partition(f'"{name}": {{"dtype": "F32"'.encode())
    assert rest
    shard.write_bytes(head + f'"{name}": {{"dtype": "I8" '.encode() + rest)


def test_quantised_checkpoint_is_refused_by_type(copy: Path) -> None:
    retype(copy, "lm_head.weight")
    with pytest.raises(CheckpointError, match="type I8"):
        Checkpoint.open(copy)


def test_other_types_do_not_matter_in_tensors_that_are_not_used(copy: Path) -> None:
    rewrite(last_shard(copy), lambda tensors: tensors.update(extra=np.zeros(4, dtype=np.float32)))
    retype(copy, "extra")
    Checkpoint.open(copy)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Checkpoint.open(tmp_path / "nowhere")
