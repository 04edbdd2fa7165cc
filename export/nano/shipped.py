"""The shipped weights as training has them, so that the repository keeps them once: a model folder, read back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import OptionError
from ..dims import CLIP, EMBED, FINAL_NORM, VISION, ModelDims, tensor_shapes

Array = npt.NDArray[np.float32]


def read_folder(folder: Path, dims: ModelDims) -> dict[str, Array]:
    """float32 tensors under the checkpoint's names, of a folder that was built in fp16 or fp32.

    The vocabulary may be smaller than that of `dims`, of a time before the last phrases were added. The graph has the
    sum of the class embedding and its position: the position is 0 here. Raises OptionError.
    """
    try:
        stored = {
            name: value for graph in ("text", "vision", "embedding") for name, value in _initializers(folder, graph)
        }
        dims = replace(dims, decoder=replace(dims.decoder, vocab_size=len(stored[EMBED])))
        return {name: _tensor(name, stored).reshape(shape) for name, shape in tensor_shapes(dims).items()}
    except (KeyError, ValueError, OSError) as exc:
        raise OptionError(f"{folder} is no model folder of nano in fp16 or fp32: {exc}") from exc


def _initializers(folder: Path, graph: str) -> list[tuple[str, Array]]:
    values = ir.load(folder / f"{graph}.onnx").graph.initializers.items()
    return [
        (name, value.const_value.numpy().astype(np.float32)) for name, value in values if value.const_value is not None
    ]


def _tensor(name: str, stored: dict[str, Array]) -> Array:
    """What the exporter made of it, undone."""
    if name.startswith(CLIP):
        return _of_tower(name, stored)
    if name.startswith(VISION) or name == EMBED:
        return stored[name]
    if name == FINAL_NORM:
        (found,) = (values for key, values in stored.items() if key.endswith("final_norm_layernorm.weight"))
        return found
    if name.endswith("layernorm.weight"):
        return stored[name]
    name = name.replace("self_attn", "attn").removesuffix("weight") + "MatMul.weight"
    parts = [name.replace("gate_up", part) for part in ("gate", "up")] if "gate_up" in name else [name]
    return np.concatenate([stored[part].T for part in parts])


def _of_tower(name: str, stored: dict[str, Array]) -> Array:
    if name.endswith("class_embedding"):
        return stored["class_and_position"]
    if name.endswith("position_embedding.weight"):
        return np.concatenate([np.zeros_like(stored["positions"][0, :1]), stored["positions"][0]])
    if name.endswith("patch_embedding.weight"):
        return stored[name].T
    if part := re.search(r"self_attn\.([qkv])_proj", name):
        return np.split(stored[name.replace(part[0], "self_attn.qkv_proj")], 3)["qkv".index(part[1])]
    return stored[name]
