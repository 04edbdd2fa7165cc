"""The trained weights at rest: a small file to train on from, and a checkpoint folder for the ordinary exporter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dims import VISION, ModelDims
from ..safetensors_file import read_header, write_file
from ..synthetic import original_config
from .network import FEATURE_UNIT, Nano
from .vocabulary import Vocabulary, write_vocabulary

PARTS = ("nano", "reader", "cell_reader")
"""The network, and the two training aids that read its features."""


_FOLDED = {"img_projection.0.weight": 1 / FEATURE_UNIT, "sub_GN": FEATURE_UNIT, "glb_GN": FEATURE_UNIT}


def write_checkpoint(nano: Nano, folder: Path) -> Path:
    """Weights in float32, config.json, the picture processor's settings (one crop) and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in nano.state_dict().items()}
    for name, factor in _FOLDED.items():
        tensors[VISION + name] = tensors[VISION + name] * np.float32(factor)
    entries = [(name, values.shape, values.dtype) for name, values in tensors.items()]
    write_file(folder / "model.safetensors", entries, tensors.__getitem__)
    write_vocabulary(folder)
    end_of_text = Vocabulary.read(folder).tokenizer.control_id("<|endoftext|>")
    _write(folder / "config.json", original_config(nano.dims, "float32", end_of_text))
    _write(folder / "preprocessor_config.json", {"num_crops": 1, "num_img_tokens": 144})
    return folder


def write_weights(state: Path, file: Path) -> None:
    """Keep the weights of a saved training state, training aids included, in float16."""
    saved: dict[str, Any] = torch.load(state, map_location="cpu", weights_only=True)
    tensors = {f"{part}.{name}": tensor.half().numpy() for part in PARTS for name, tensor in saved[part].items()}
    write_file(file, [(n, t.shape, t.dtype) for n, t in tensors.items()], tensors.__getitem__)


def read_weights(file: Path) -> dict[str, dict[str, Tensor]]:
    """State dicts of the parts ("nano" and the training aids) from a training state (.pt) or a small file."""
    if file.suffix != ".safetensors":
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return {part: saved[part] for part in PARTS}
    weights: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for full, entry in read_header(file).items():
        part, _, name = full.partition(".")
        weights[part][name] = torch.from_numpy(entry.read().astype(np.float32))
    return weights


def read_nano(file: Path, dims: ModelDims) -> Nano:
    """The network out of either."""
    nano = Nano(dims)
    nano.load_state_dict(read_weights(file)["nano"])
    return nano


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
