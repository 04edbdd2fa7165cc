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
from tokenizers import Tokenizer

from ..errors import CheckpointError
from ..images.cropped import MAX_CROPS
from ..models.files import refuse_lfs_pointer
from .dims import EMBED, EMBED_ALIAS, LM_HEAD, ModelDims, tensor_shapes
from .safetensors_file import Array, TensorEntry, read_header

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
END_TOKENS = ("<|end|>", "<|endoftext|>", "<|assistant|>")
BOS_TOKEN = "<s>"

SYNTHETIC_KEY = "phi3v_synthetic"
"""Set in config.json by our own random checkpoints, so that a model built from one says so."""


@dataclass(slots=True)
class Checkpoint:
    """A folder whose config, tensors and tokenizer files are all there.

    `num_crops` is the checkpoint's own, 16 where its preprocessor_config.json is absent or silent; `token_ids` those of
    END_TOKENS and BOS_TOKEN. `on_read(nbytes)` is called after every read, for progress.
    """

    path: Path
    config: dict[str, Any]
    dims: ModelDims
    num_crops: int
    token_ids: dict[str, int]
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
        read_json(path / "tokenizer_config.json")
        ids = _token_ids(path / "tokenizer.json", dims.decoder.vocab_size)
        return cls(path, config, dims, _num_crops(path / "preprocessor_config.json"), ids, tensors)

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
        """Bytes an export reads: every tensor once, the embedding twice where it is the head too."""
        return sum(self.tensors[name].nbytes for name in {*tensor_shapes(self.dims), LM_HEAD})

    @property
    def synthetic(self) -> bool:
        """Whether the weights are random, made by this project."""
        return bool(self.config.get(SYNTHETIC_KEY, False))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder; raises CheckpointError naming the file."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} lacks {path.name}; download the whole checkpoint again")
    text = path.read_bytes()
    refuse_lfs_pointer(path, text, CheckpointError)
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is not readable JSON ({exc}); download it again") from exc
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} holds a {type(parsed).__name__}, not an object; download it again")
    return parsed


def _num_crops(file: Path) -> int:
    num_crops = read_json(file).get("num_crops", MAX_CROPS) if file.is_file() else MAX_CROPS
    if not isinstance(num_crops, int) or not 1 <= num_crops <= MAX_CROPS:
        raise CheckpointError(f"{file} has num_crops {num_crops!r}; allowed: 1 to {MAX_CROPS}")
    return num_crops


def _token_ids(file: Path, vocab_size: int) -> dict[str, int]:
    """Ids of the tokens that genai must know by number."""
    read_json(file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:  # the library raises bare Exception
        raise CheckpointError(f"{file} is no readable tokenizer ({exc}); download it again") from exc
    ids: dict[str, int] = {}
    for token in (*END_TOKENS, BOS_TOKEN):
        number = tokenizer.token_to_id(token)
        if number is None:
            raise CheckpointError(f"{file} has no token {token}: it is no Phi-3 tokenizer")
        if number >= vocab_size:
            raise CheckpointError(f"{file} numbers {token} {number}, beyond config.json's vocab_size {vocab_size}")
        ids[token] = number
    return ids


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
    if EMBED not in tensors and EMBED_ALIAS in tensors:
        tensors[EMBED] = tensors[EMBED_ALIAS]
    if dims.decoder.tie_word_embeddings and EMBED in tensors:
        tensors[LM_HEAD] = tensors[EMBED]  # a head in the file is a leftover: a tied model never uses it
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
