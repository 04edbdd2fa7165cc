"""Read a Hugging Face checkpoint folder of Phi-3-vision tensor by tensor, in the original names.

Needs no torch, no transformers and no remote code. Every file, name and shape is checked when the folder is opened, so
that a build which starts can finish.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from .dims import EMBED, EMBED_ALIAS, LM_HEAD, ModelDims, tensor_shapes
from .safetensors_file import Array, TensorEntry, read_header

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
DEFAULT_CROPS = 16

SYNTHETIC_KEY = "phi3v_synthetic"
"""Set in config.json by our own random checkpoints, so that a model built from one says so."""


@dataclass(slots=True)
class Checkpoint:
    """A folder whose config, tensors and tokenizer files are all there.

    `on_read(nbytes)` is called after every read, for progress.
    """

    path: Path
    config: dict[str, Any]
    dims: ModelDims
    tensors: dict[str, TensorEntry] = field(repr=False)
    on_read: Callable[[int], None] | None = None

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Check a folder; raises CheckpointError that names the file or tensor and the remedy."""
        if not path.is_dir():
            raise CheckpointError(f"{path} is no folder; give the folder that holds config.json and the safetensors")
        config = read_json(path / "config.json")
        dims = ModelDims.from_config(config)
        tensors = _with_aliases(_tensor_entries(path), dims)
        for name, shape in tensor_shapes(dims).items():
            _check_tensor(path, tensors, name, shape)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            read_json(path / name)
        return cls(path, config, dims, tensors)

    def read(self, name: str, rows: slice | None = None) -> Array:
        """A tensor, or only `rows` of its first axis, in the checkpoint's own type (bf16, fp16 or fp32)."""
        values = self.tensors[name].read(rows)
        if self.on_read:
            self.on_read(values.nbytes)
        return values

    def float32(self, name: str, rows: slice | None = None) -> npt.NDArray[np.float32]:
        """The same in float32."""
        return self.read(name, rows).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors an export reads."""
        return sum(self.tensors[name].nbytes for name in tensor_shapes(self.dims))

    @property
    def num_crops(self) -> int:
        """The checkpoint's own number of crops; 16 where its preprocessor_config.json is absent or silent."""
        file = self.path / "preprocessor_config.json"
        return int(read_json(file).get("num_crops", DEFAULT_CROPS)) if file.is_file() else DEFAULT_CROPS

    @property
    def synthetic(self) -> bool:
        """Whether the weights are random, made by this project."""
        return bool(self.config.get(SYNTHETIC_KEY, False))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder; raises CheckpointError naming the file."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} lacks {path.name}; download the whole checkpoint again")
    text = path.read_bytes()
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder")
    try:
        parsed = json.loads(text)
    except ValueError as exc:
        raise CheckpointError(f"{path} is not readable JSON ({exc}); download it again") from exc
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} holds a {type(parsed).__name__}, not an object; download it again")
    return parsed


def _tensor_entries(path: Path) -> dict[str, TensorEntry]:
    if (path / _INDEX).is_file():
        return _sharded_entries(path)
    if (path / _SINGLE).is_file():
        return read_header(path / _SINGLE)
    raise CheckpointError(
        f"{path} holds neither {_SINGLE} nor {_INDEX}; give a checkpoint in the safetensors format "
        "(a pytorch_model.bin must be converted first)"
    )


def _sharded_entries(path: Path) -> dict[str, TensorEntry]:
    """Entries of all shards; a name the index puts into one shard is taken from no other."""
    weight_map = read_json(path / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path / _INDEX} has no weight_map; download it again")
    shards = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{path / _INDEX} names the shard {shard!r}; only files of that folder are read")
        shards[shard] = read_header(path / shard)
    return {name: shards[shard][name] for name, shard in weight_map.items() if name in shards[shard]}


def _with_aliases(tensors: dict[str, TensorEntry], dims: ModelDims) -> dict[str, TensorEntry]:
    aliases = {EMBED: EMBED_ALIAS}
    if dims.decoder.tie_word_embeddings:
        aliases[LM_HEAD] = EMBED
    for name, alias in aliases.items():
        if name not in tensors and alias in tensors:
            tensors[name] = tensors[alias]
    return tensors


def _check_tensor(path: Path, tensors: dict[str, TensorEntry], name: str, shape: tuple[int, ...]) -> None:
    entry = tensors.get(name)
    if entry is None:
        raise CheckpointError(f"{path} lacks the tensor {name}; this is no Phi-3-vision, or a shard is missing")
    if entry.shape != shape:
        raise CheckpointError(
            f"{entry.path}: {name} has the shape {list(entry.shape)} where config.json implies {list(shape)}; "
            "take config.json and weights from the same checkpoint"
        )
    _ = entry.dtype  # refuses a type that cannot be read
