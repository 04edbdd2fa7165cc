"""What a model folder must hold, what it can do, and what is wrong with one that will not load.

Reads configuration and file sizes only; opens no graph.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError, ModelNotFoundError, OldLayoutError
from ..types import MAX_CROPS

MANIFEST = "phi3v.json"
"""Our exporter's own record beside the files genai reads."""

ORIGINAL_CONTEXT = 4096
"""Where LongRoPE switches factors in every published Phi-3-vision (`original_max_position_embeddings`)."""

GENAI_CONFIG = "genai_config.json"
"""What onnxruntime-genai reads first."""

MODEL_VARIABLE = "PHI3V_MODEL"
"""The environment variable that names the model when nobody else does."""

BUILTIN = Path(__file__).parent.parent / "builtin" / "nano"
"""The model that comes with the package."""

_ALWAYS_NEEDED = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")
# Source: onnx.proto, StringStringEntryProto {key = 1; value = 2}: the key, the value's field number, its length.
_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)
# Source: onnx.proto, ValueInfoProto {name = 1; type = 2}, TypeProto {tensor_type = 1}, Tensor {elem_type = 1}.
_PIXEL_INPUT = re.compile(rb"\x0a\x0cpixel_values\x12.{1,2}?\x0a.{1,2}?\x08([\x01\x0a])", re.DOTALL)
_DEVICES = ("cpu", "cuda")
_PIXEL_DTYPES = (None, "float16", "float32")
_REPAIR = "fetch or export the model again"


@dataclass(frozen=True, slots=True)
class ModelDir:
    """A model folder that has everything it must hold.

    `pixel_dtype` is the vision graph's input type, None where it takes neither float32 nor float16.
    `original_context_length` is the length up to which LongRoPE's short factors apply, None for a model without the
    switch. `shared_kv_buffer`: the decoder adds to its KV cache in place. `about` says what
    the model is good for, where that is less than Phi-3-vision's all.
    """

    path: Path
    context_length: int
    vocab_size: int
    original_context_length: int | None
    eos_token_ids: frozenset[int]
    num_crops: int
    kv_bytes_per_token: int
    built_for: str
    precision: str | None
    pixel_dtype: str | None
    synthetic: bool
    graphs: dict[str, int] = field(repr=False)
    """Bytes of each graph with its weights: "vision", "embedding", "decoder"."""
    pulled_as: str | None = None
    pad_token_id: int = 0
    """What genai takes for padding in the rows of a batch."""
    hidden_size: int = 0
    """Width of the decoder."""
    shared_kv_buffer: bool = False
    about: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelDir:
        """Check a folder and read its limits.

        Raises ModelNotFoundError, OldLayoutError or ModelFolderError, each naming the file and the remedy.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is a file, not a model folder" if folder.exists() else "does not exist"
            raise ModelNotFoundError(f"{folder} {what}; give the folder that holds {GENAI_CONFIG}")
        _require_utf8(folder)
        with _blamed(folder / GENAI_CONFIG) as file:
            config = _read_json(file)
            model, shared = config["model"], bool(config.get("search", {}).get("past_present_share_buffer"))
            _check_layout(folder, model)
        with _blamed(folder / MANIFEST) as file:
            manifest = _read_json(file) if file.exists() else {}
            _check_manifest(manifest)
        for name in _ALWAYS_NEEDED:
            _require_file(folder / name)
        with _blamed(folder / GENAI_CONFIG):
            parts = ("vision", "embedding", "decoder")
            graphs = {part: _graph_bytes(folder / model[part]["filename"]) for part in parts}
        with _blamed(folder / MANIFEST):
            _check_files(folder, manifest)
        with _blamed(folder / "processor_config.json") as file:
            num_crops = _num_crops(file)
        with _blamed(folder / GENAI_CONFIG):
            pixels = manifest.get("pixel_dtype") or _pixel_dtype(folder / model["vision"]["filename"])
            known: dict[str, Any] = {
                "graphs": graphs,
                "num_crops": num_crops,
                "pixel_dtype": pixels,
                "shared_kv_buffer": shared,
            }
            return cls(path=folder, **known, **_limits(model, manifest))

    @property
    def name(self) -> str:
        """What people call it: the pulled model's name and variant, else the folder's name."""
        return self.pulled_as or self.path.resolve().name

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of KV cache for a sequence of `tokens`."""
        return tokens * self.kv_bytes_per_token

    def past_switch(self, length: int) -> bool:
        """Whether a sequence of `length` tokens takes LongRoPE's long factors."""
        return self.original_context_length is not None and length > self.original_context_length

    def stop_at_switch(self, length: int, max_length: int) -> int:
        """The most tokens that one KV cache can serve, of `max_length`, when `length` are there already.

        A sequence below the LongRoPE switch ends with the first token behind it: there, all positions change.
        """
        if self.original_context_length is None or self.past_switch(length):
            return max_length
        return min(max_length, self.original_context_length + 1)


@contextmanager
def _blamed(file: Path) -> Iterator[Path]:
    """Turn what a value of the wrong kind raises into an error that names the file it is in."""
    try:
        yield file
    except ModelFolderError:
        raise
    except KeyError as exc:
        raise ModelFolderError(f"{file} lacks {exc}; {_REPAIR}") from exc
    except (TypeError, AttributeError, ValueError, OverflowError, IndexError) as exc:
        raise ModelFolderError(f"{file} holds a value of the wrong kind ({exc}); {_REPAIR}") from exc


def _require_utf8(folder: Path) -> None:
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as exc:
        raise ModelFolderError(
            f"{folder}: the path is not valid UTF-8, which onnxruntime-genai cannot open; rename the folder"
        ) from exc


def _limits(model: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """What a folder can do, by genai's configuration and our record."""
    decoder, context = model["decoder"], int(model["context_length"])
    providers = [name for entry in decoder["session_options"]["provider_options"] for name in entry]
    built_for = manifest.get("device") or ("cuda" if "cuda" in providers else "cpu")
    kv_values = decoder["num_hidden_layers"] * 2 * decoder["num_key_value_heads"] * decoder["head_size"]
    original = manifest.get("original_context_length", ORIGINAL_CONTEXT)
    eos = model["eos_token_id"]
    return {
        "context_length": context,
        "vocab_size": int(model["vocab_size"]),
        "original_context_length": original if original is not None and original < context else None,
        "eos_token_ids": frozenset(eos if isinstance(eos, list) else [eos]),
        "kv_bytes_per_token": int(manifest.get("kv_bytes_per_token") or kv_values * (2 if built_for == "cuda" else 4)),
        "built_for": built_for,
        "precision": manifest.get("precision"),
        "synthetic": bool(manifest.get("synthetic", False)),
        "pad_token_id": int(model.get("pad_token_id", 0)),
        "hidden_size": int(decoder.get("hidden_size", 0)),
        "pulled_as": f"{manifest['name']}:{manifest['variant']}" if "variant" in manifest else None,
        "about": manifest.get("about"),
    }


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Refuse values that would otherwise be found out deep inside a load."""
    rules = {
        "device": (manifest.get("device") in (None, *_DEVICES), "cpu, cuda"),
        "pixel_dtype": (manifest.get("pixel_dtype") in _PIXEL_DTYPES, "float16, float32"),
        "files": (isinstance(manifest.get("files", {}), dict), "an object of names and sizes"),
        "about": (isinstance(manifest.get("about"), str | None), "a text"),
    }
    for key in ("kv_bytes_per_token", "original_context_length"):
        rules[key] = (isinstance(manifest.get(key) or 0, int), "an integer")
    for key, (ok, allowed) in rules.items():
        if not ok:
            raise ValueError(f"{key} is {manifest[key]!r}; allowed: {allowed}")


def _read_json(path: Path) -> dict[str, Any]:
    _require_file(path)
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as exc:
        raise ModelFolderError(f"{path} is not readable JSON ({exc}); {_REPAIR}") from exc
    if not isinstance(parsed, dict):
        raise ModelFolderError(f"{path} holds a {type(parsed).__name__}, not an object; {_REPAIR}")
    return parsed


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ModelFolderError(f"{path.parent} is no complete model folder: {path.name} is missing; {_REPAIR}")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ModelFolderError(f"{path} is empty; {_REPAIR}")
    if head.startswith(b"version https://git-lfs"):
        raise ModelFolderError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder")


def _check_layout(folder: Path, model: dict[str, Any]) -> None:
    kind = model["type"]
    if kind != "phi3v":
        raise ModelFolderError(f'{folder} holds a model of type "{kind}"; phi3v runs "phi3v" (Phi-3-vision) only')
    old_vision = "visual_features" in model["vision"].get("outputs", {})
    old_embedding = "image_features" not in model["embedding"].get("inputs", {"image_features": ""})
    if old_vision or old_embedding:
        raise OldLayoutError(
            f"{folder} is a build in the old layout (vision output visual_features), which onnxruntime-genai stopped "
            f"loading in 0.5; `phi3v migrate {folder} NEW_FOLDER` rewrites it without copying the weights, and "
            "`phi3v pull phi-3-vision` fetches the current build"
        )


def _graph_bytes(graph: Path) -> int:
    """Bytes of a graph and of the external data files it names."""
    _require_file(graph)
    with _blamed(graph):
        files = [graph.parent / name for name in sorted(_external_files(graph))]
    for file in files:
        _require_file(file)
    return sum(file.stat().st_size for file in (graph, *files))


def _external_files(graph: Path) -> set[str]:
    """Names of the data files a graph's tensors lie in, read off its protobuf without the onnx package."""
    names = set()
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in _LOCATION.finditer(content):
            length, start = found.group(1)[0], found.end()
            if length >= 0x80:  # a varint of two bytes; longer names than 16383 characters there are none
                length, start = length - 0x80 + (content[start] << 7), start + 1
            names.add(content[start : start + length].decode(errors="replace"))
    return names


def _pixel_dtype(graph: Path) -> str | None:
    """The type of a vision graph's `pixel_values`, read off its protobuf."""
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _PIXEL_INPUT.search(content)
        kind = found.group(1) if found else None
    return {b"\x01": "float32", b"\x0a": "float16", None: None}[kind]


def pull_command(manifest: dict[str, Any]) -> str:
    """What to type to repair a pulled model, from its manifest."""
    pinned = "" if manifest.get("revision") == "main" else f" --revision {manifest.get('revision')}"
    return f"phi3v pull {manifest['name']}:{manifest['variant']}{pinned}"


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    repair = f"run `{pull_command(manifest)}`" if "variant" in manifest else _REPAIR
    if damaged := manifest.get("damaged"):
        raise ModelFolderError(f"{folder} failed its last verification ({', '.join(damaged)} damaged); {repair}")
    for name, size in manifest.get("files", {}).items():
        _require_file(folder / name)
        found = (folder / name).stat().st_size
        if found != size:
            raise ModelFolderError(
                f"{folder / name} has {found} bytes instead of {size}: truncated or changed; {repair}"
            )


def _num_crops(path: Path) -> int:
    """The folder's default number of crops, from genai's processor description."""
    transforms = _read_json(path)["processor"]["transforms"]
    for transform in transforms:
        attributes = transform["operation"].get("attrs", {})
        if "num_crops" in attributes:
            num_crops = int(attributes["num_crops"])
            if not 1 <= num_crops <= MAX_CROPS:
                raise ValueError(f"num_crops is {num_crops}; allowed: 1 to {MAX_CROPS}")
            return num_crops
    raise ModelFolderError(f"{path} sets no num_crops; {_REPAIR}")
