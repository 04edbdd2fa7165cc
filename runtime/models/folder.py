"""What a model folder must hold, what it can do, and what is wrong with one that will not load.

Reads configuration, file sizes and a few bytes of each graph; loads no graph.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError, ModelNotFoundError, OldLayoutError
from ..images.cropped import MAX_CROPS
from .files import REPAIR, name_in_errors, read_json, require_file
from .graph_file import count_bytes, find_pixel_dtype
from .manifest import UNSTATED, Manifest

ORIGINAL_CONTEXT = 4096
"""Where LongRoPE switches factors in every published Phi-3-vision (`original_max_position_embeddings`)."""

GENAI_CONFIG = "genai_config.json"
"""What onnxruntime-genai reads first."""

MODEL_VARIABLE = "PHI3V_MODEL"
"""The environment variable that names the model when nobody else does."""

BUILTIN = Path(__file__).parent.parent / "builtin" / "nano"
"""The model that comes with the package."""

BLOCK_GRAPHS = {"vision": "vision-blocks.onnx", "decoder": "text-blocks.onnx"}
"""Beside graphs with int8 prefill: the same parts with every matrix in blocks, which other processors take."""

_PROCESSOR_CONFIG = "processor_config.json"
_PUBLISHED_END_TOKENS = (32000, 32001, 32007)
"""<|endoftext|>, <|assistant|> and <|end|> of every published Phi-3-vision."""

_ALWAYS_NEEDED = (_PROCESSOR_CONFIG, "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ModelDir:
    """A model folder that has everything it must hold.

    `pixel_dtype` is the vision graph's input type, None where it takes neither float32 nor float16.
    `original_context_length` is the length up to which LongRoPE's short factors apply, None for a model without the
    switch. `shared_kv_buffer`: the decoder adds to its KV cache in place. `about`, `brief`, `needs_image` and
    `knows_formats` say what the model is good for, where that is less than all of Phi-3-vision's jobs. `int8_prefill`:
    prompts are multiplied in row-wise int8; `block_graphs`: the files and bytes of the parts that do not, where the
    folder has them beside.
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
    """The id that genai takes for padding in the rows of a batch."""
    hidden_size: int = 0
    """Width of the decoder."""
    shared_kv_buffer: bool = False
    devices: tuple[str, ...] = ()
    """The kinds of devices that "auto" may run it on."""
    about: str | None = None
    brief: str | None = None
    needs_image: bool = False
    knows_formats: bool = True
    int8_prefill: bool = False
    block_graphs: dict[str, tuple[str, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelDir:
        """Check a folder and read its limits.

        Raises ModelNotFoundError, OldLayoutError or ModelFolderError, each naming the file and the remedy.
        """
        folder = Path(path)
        if not os.path.isdir(folder):  # noqa: PTH112 - False for too long a name, where Path raises
            what = "is a file, not a model folder" if os.path.exists(folder) else "does not exist"  # noqa: PTH110
            raise ModelNotFoundError(f"{folder} {what}; give the folder that holds {GENAI_CONFIG}")
        _require_utf8(folder)
        with name_in_errors(folder / GENAI_CONFIG) as file:
            config = read_json(file)
            model, shared = config["model"], bool(config.get("search", {}).get("past_present_share_buffer"))
            _check_architecture(folder, model)
        manifest = Manifest.find(folder) or Manifest()
        for name in _ALWAYS_NEEDED:
            require_file(folder / name)
        with name_in_errors(folder / GENAI_CONFIG):
            parts = ("vision", "embedding", "decoder")
            graphs = {part: count_bytes(folder / model[part]["filename"]) for part in parts}
            beside = {part: name for part, name in BLOCK_GRAPHS.items() if (folder / name).exists()}
        _check_files(folder, manifest)
        with name_in_errors(folder / _PROCESSOR_CONFIG) as file:
            num_crops = _read_num_crops(file)
        with name_in_errors(folder / GENAI_CONFIG):
            pixels = manifest.pixel_dtype or find_pixel_dtype(folder / model["vision"]["filename"])
            known: dict[str, Any] = {
                "graphs": graphs,
                "block_graphs": {part: (name, count_bytes(folder / name)) for part, name in beside.items()},
                "num_crops": num_crops,
                "pixel_dtype": pixels,
                "shared_kv_buffer": shared,
            }
            return cls(path=folder, **known, **_limits(model, manifest, pixels))

    @property
    def name(self) -> str:
        """What people call it: the pulled model's name and variant, else the folder's name."""
        return self.pulled_as or self.path.resolve().name

    @property
    def crop_dtype(self) -> str:
        """The dtype to make crops in: what the vision graph takes, float32 where that is neither float."""
        return "float16" if self.pixel_dtype == "float16" else "float32"

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


def old_layout(model: dict[str, Any]) -> str | None:
    """The sign that a build is in the layout before genai 0.5, as a clause; None for today's layout.

    `model` is that part of genai_config.json. A KeyError or an AttributeError means that it is not a phi3v model's.
    """
    if "visual_features" in model["vision"].get("outputs", {}):
        return "its vision graph gives visual_features"
    if "image_features" not in model["embedding"].get("inputs", {"image_features": ""}):
        return "its embedding graph takes no image_features"
    return None


def _require_utf8(folder: Path) -> None:
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as exc:
        raise ModelFolderError(
            f"{folder}: the path is not valid UTF-8, which onnxruntime-genai cannot open; rename the folder"
        ) from exc


def _check_architecture(folder: Path, model: dict[str, Any]) -> None:
    kind = model["type"]
    if kind != "phi3v":
        raise ModelFolderError(f'{folder} holds a model of type "{kind}"; phi3v runs "phi3v" (Phi-3-vision) only')
    if sign := old_layout(model):
        raise OldLayoutError(
            f"{folder} is a build in the old layout ({sign}), which onnxruntime-genai stopped loading in 0.5; "
            f"`phi3v migrate {folder} NEW_FOLDER` rewrites it without copying the weights, and "
            "`phi3v pull phi-3-vision` fetches the current build"
        )


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that is not what its manifest lists."""
    if manifest.damaged:
        damaged = ", ".join(manifest.damaged)
        raise ModelFolderError(f"{folder} failed its last verification ({damaged} damaged); {manifest.repair}")
    for name, size in manifest.files.items():
        require_file(folder / name)
        found = (folder / name).stat().st_size
        if found != size:
            raise ModelFolderError(
                f"{folder / name} has {found} bytes instead of {size}: truncated or changed; {manifest.repair}"
            )


def _read_num_crops(file: Path) -> int:
    """The folder's default number of crops, from genai's description of its image processor."""
    for transform in read_json(file)["processor"]["transforms"]:
        attributes = transform["operation"].get("attrs", {})
        if "num_crops" in attributes:
            num_crops = int(attributes["num_crops"])
            if not 1 <= num_crops <= MAX_CROPS:
                raise ValueError(f"num_crops is {num_crops}; allowed: 1 to {MAX_CROPS}")
            return num_crops
    raise ModelFolderError(f"{file} sets no num_crops; {REPAIR}")


def _guess_device(providers: list[str], pixel_dtype: str | None) -> str:
    """What a build without a manifest is for.

    The published builds for CUDA name no provider, and differ from those for the CPU in their half-precision pixels.
    """
    return "cuda" if "cuda" in providers or (not providers and pixel_dtype == "float16") else "cpu"


def _end_tokens(stated: int | list[int], vocab_size: int) -> frozenset[int]:
    """The ids that end an answer.

    A published genai_config.json may name one. The checkpoint's generation_config.json has three, which is what
    a configuration with a list states.
    """
    if isinstance(stated, list):
        return frozenset(stated)
    return frozenset({stated, *(token for token in _PUBLISHED_END_TOKENS if token < vocab_size)})


def _limits(model: dict[str, Any], manifest: Manifest, pixel_dtype: str | None) -> dict[str, Any]:
    """What a folder can do, according to genai's configuration and the manifest."""
    decoder, context = model["decoder"], int(model["context_length"])
    providers = [name for entry in decoder["session_options"]["provider_options"] for name in entry]
    built_for = manifest.device or _guess_device(providers, pixel_dtype)
    kv_values = decoder["num_hidden_layers"] * 2 * decoder["num_key_value_heads"] * decoder["head_size"]
    stated = manifest.original_context_length
    original = ORIGINAL_CONTEXT if stated is UNSTATED else stated
    return {
        "context_length": context,
        "vocab_size": int(model["vocab_size"]),
        "original_context_length": original if original is not None and original < context else None,
        "eos_token_ids": _end_tokens(model["eos_token_id"], int(model["vocab_size"])),
        "kv_bytes_per_token": manifest.kv_bytes_per_token or int(kv_values * (2 if built_for == "cuda" else 4)),
        "built_for": built_for,
        "devices": manifest.devices or (built_for,),
        "precision": manifest.precision,
        "synthetic": bool(manifest.synthetic),
        "pad_token_id": int(model.get("pad_token_id", 0)),
        "hidden_size": int(decoder.get("hidden_size", 0)),
        "pulled_as": manifest.full_name,
        "about": manifest.about,
        "brief": manifest.brief,
        "needs_image": bool(manifest.needs_image),
        "knows_formats": manifest.knows_formats is not False,
        "int8_prefill": bool(manifest.extra.get("prefill")),
    }
