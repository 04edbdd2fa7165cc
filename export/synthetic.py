"""Random checkpoints in the original layout: a tiny one for tests, one of the real size to prove what an export costs.

Their answers mean nothing; config.json says so, and so does every model built from one. Several threads each write a
shard tensor by tensor: memory holds one tensor a thread.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..errors import ModelFolderError
from ..models.manifest import Manifest
from .checkpoint import SYNTHETIC_KEY
from .dims import CLIP, LM_HEAD, VISION, ClipDims, DecoderDims, LongRope, ModelDims, Shape, tensor_shapes
from .outliers import check_outliers, plant_outliers
from .safetensors_file import write_file
from .tokenizer import SMALLEST_VOCABULARY, first_special_id, write_tokenizer

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_FLOAT32 = np.dtype(np.float32)
_THREADS = 12
"""Most threads that write shards: each holds a tensor in float32, at most 0.4 GB, and its copy."""
# GELU's outputs have a positive mean; rows that sum to zero keep it from becoming one direction all tokens share.
_AFTER_GELU = ("mlp.fc2.weight", "img_projection.2.weight")


def tiny_dims(
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    original_context: int | None = 4096,
    context: int = 131072,
    vocab_size: int = 512,
) -> ModelDims:
    """A model of under a million parameters; `original_context` sets the LongRoPE switch (None: plain RoPE)."""
    clip = ClipDims(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4)
    decoder = DecoderDims(
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=max(vocab_size, SMALLEST_VOCABULARY),
        max_position_embeddings=context,
        long_rope=None if original_context is None else _long_rope(hidden_size // heads, original_context),
    )
    return ModelDims(clip, decoder)


def full_dims(*, layers: int = 32) -> ModelDims:
    """The published dimensions: 4.15 B parameters at 32 layers, 8.3 GB in bf16."""
    return ModelDims(ClipDims(), DecoderDims(num_hidden_layers=layers, long_rope=_long_rope(96, 4096)))


def _long_rope(head_size: int, original: int) -> LongRope:
    """Stand-ins for the published factors: rising over the frequencies, far apart between short and long."""

    def rising(last: float) -> tuple[float, ...]:
        count = head_size // 2
        return tuple(round(1 + (last - 1) * (n / max(1, count - 1)) ** 2, 4) for n in range(count))

    return LongRope(short_factor=rising(2.0), long_factor=rising(60.0), original=original)


def write_random_checkpoint(
    path: Path,
    dims: ModelDims,
    seed: int = 0,
    *,
    dtype: str = "bfloat16",
    num_crops: int = 16,
    outliers: Mapping[str, float] | None = None,
) -> Path:
    """Write a checkpoint folder with random weights; `dtype` is "bfloat16" or "float32".

    The same seed gives the same weights, tensor by tensor, whatever the number of layers. `outliers` makes a few
    channels larger: a place (OUTLIER_PLACES in outliers.py) -> the factor. Raises ModelFolderError when `path` holds
    anything but an older random checkpoint, and OptionError for a place or a factor that does not exist.
    """
    planted = dict(outliers or {})
    check_outliers(planted)
    require_random_checkpoint(path)
    path.mkdir(parents=True, exist_ok=True)
    special = first_special_id(dims.decoder.vocab_size)
    # First: a run that was interrupted can be run again.
    _write(path / "config.json", {SYNTHETIC_KEY: True, **original_config(dims, dtype, special)})
    stored = _BFLOAT16 if dtype == "bfloat16" else _FLOAT32
    shapes = tensor_shapes(dims)
    shards = _shards(shapes)
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]

    def values(name: str) -> npt.NDArray[np.float32]:
        return plant_outliers(name, _values(name, shapes[name], seed), dims, planted)

    def write_shard(file: str, names: list[str]) -> int:
        tensors = [(name, shapes[name], stored) for name in names]
        return write_file(path / file, tensors, values)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        total = sum(threads.map(write_shard, files, shards))
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    _write(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write(path / "preprocessor_config.json", {"num_crops": num_crops, "num_img_tokens": 144})
    write_tokenizer(path, dims.decoder.vocab_size)
    return path


def require_random_checkpoint(folder: Path) -> None:
    """Refuse to write over a folder unless it is empty or a checkpoint whose config.json says that it is random."""
    try:
        random = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(SYNTHETIC_KEY) is True
    except (OSError, ValueError, AttributeError):
        random = False
    _require_replaceable(folder, random)


def require_random_model(folder: Path) -> None:
    """Refuse to write over a folder unless it is empty or a model whose manifest says that its weights are random."""
    try:
        random = Manifest.read(folder).synthetic is True
    except (OSError, ModelFolderError):
        random = False
    _require_replaceable(folder, random)


def _require_replaceable(folder: Path, random: bool) -> None:
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not random:
        raise ModelFolderError(f"{folder} is not empty and holds no random weights of ours; give another folder")


def _shards(shapes: dict[str, Shape]) -> list[list[str]]:
    """One shard for the vision tower, one for the embedding, one a decoder layer, one for the head."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        group = ".".join(parts[:3]) if name.startswith("model.layers.") else parts[1] if len(parts) > 2 else name
        groups.setdefault(group, []).append(name)
    return list(groups.values())


def _values(name: str, shape: Shape, seed: int) -> npt.NDArray[np.float32]:
    """Values whose scale keeps activations and logits alive through any number of layers."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = random.standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name:
        return 1 + np.float32(0.05) * noise
    values = np.float32(_spread(name, shape)) * noise
    if name.endswith(_AFTER_GELU):
        values -= values.mean(axis=-1, keepdims=True)
    return values


def _spread(name: str, shape: Shape) -> float:
    """Standard deviation of a tensor's values."""
    if name.endswith(".bias"):
        return 0.05
    if "embed_tokens.weight" in name or name in (f"{VISION}sub_GN", f"{VISION}glb_GN"):
        return 0.5
    if name.startswith(f"{CLIP}embeddings."):
        return 0.5 if len(shape) < 4 else 1 / math.sqrt(math.prod(shape[1:]))
    gain = 2.0 if name == LM_HEAD else 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
    return gain / math.sqrt(shape[-1])


def original_config(dims: ModelDims, dtype: str, end_of_text: int) -> dict[str, Any]:
    """config.json as the published checkpoint has it, with CLIP's dimensions spelled out."""
    clip, decoder, rope = dims.clip, dims.decoder, dims.decoder.long_rope
    scaling = rope and {"type": "su", "short_factor": list(rope.short_factor), "long_factor": list(rope.long_factor)}
    config: dict[str, Any] = {
        "architectures": ["Phi3VForCausalLM"],
        "model_type": "phi3_v",
        "torch_dtype": dtype,
        "hidden_act": "silu",
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "num_hidden_layers": decoder.num_hidden_layers,
        "num_attention_heads": decoder.num_attention_heads,
        "num_key_value_heads": decoder.num_key_value_heads,
        "vocab_size": decoder.vocab_size,
        "max_position_embeddings": decoder.max_position_embeddings,
        "original_max_position_embeddings": rope.original if rope else decoder.max_position_embeddings,
        "rms_norm_eps": decoder.rms_norm_eps,
        "rope_theta": decoder.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": decoder.tie_word_embeddings,
        "bos_token_id": 1,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "sliding_window": decoder.max_position_embeddings,
        "embd_layer": {
            "embedding_cls": "image",
            "hd_transform_order": "sub_glb",
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
    }
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    config["img_processor"] = {
        "name": "clip_vision_model",
        "model_name": "openai/clip-vit-large-patch14-336",
        "image_dim_out": clip.hidden_size,
        "num_img_tokens": 144,
        **{name: getattr(clip, name) for name in names},
    }
    return config


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
