"""The trained weights at rest: what to train on from, and a checkpoint folder for the ordinary exporter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import OptionError
from ...tokenizer import Tokenizer
from ..dims import EMBED, LM_HEAD, VISION
from ..safetensors_file import read_header, write_file
from ..synthetic import original_config
from .network import FEATURE_UNIT, Nano, nano_dims
from .shipped import read_folder
from .vocabulary import LIKE, PHRASES, VOCABULARY, phrase_ids, write_vocabulary

_NANO = "nano."
"""Before the names of the network's own weights; those of training aids begin otherwise."""

_FOLDED = {"img_projection.0.weight": 1 / FEATURE_UNIT, "sub_GN": FEATURE_UNIT, "glb_GN": FEATURE_UNIT}


def write_checkpoint(nano: Nano, folder: Path) -> Path:
    """Weights in float32, config.json, the picture processor's settings (one crop) and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in nano.state_dict().items()}
    for name, factor in _FOLDED.items():
        tensors[VISION + name] = tensors[VISION + name] * np.float32(factor)
    entries = [(name, values.shape, values.dtype) for name, values in tensors.items()]
    write_file(folder / "model.safetensors", entries, tensors.__getitem__)
    write_vocabulary(folder, nano.dims.decoder.vocab_size)
    end_of_text = Tokenizer(folder / "tokenizer.json").control_id("<|endoftext|>")
    _write(folder / "config.json", original_config(nano.dims, "float32", end_of_text))
    _write(folder / "preprocessor_config.json", {"num_crops": 1, "num_img_tokens": 144})
    return folder


def write_aids(state: Path, file: Path) -> None:
    """Keep the training aids of a saved training state, in float16: with its model folder, all to train on from."""
    tensors = {name: t.half().numpy() for name, t in read_weights(state).items() if not name.startswith(_NANO)}
    if not tensors:
        raise OptionError(f"{state} has no training aids; give what training saved (.pt)")
    write_file(file, [(n, t.shape, t.dtype) for n, t in tensors.items()], tensors.__getitem__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights of a `Learner`: the mean ones of a training state (.pt), its aids (.safetensors), or a folder's."""
    if path.is_dir():
        tensors = read_folder(path, nano_dims())
        for name, factor in _FOLDED.items():
            tensors[VISION + name] /= np.float32(factor)
        return {_NANO + name: torch.from_numpy(values) for name, values in tensors.items()}
    if path.suffix == ".safetensors":
        return {name: torch.from_numpy(e.read().astype(np.float32)) for name, e in read_header(path).items()}
    mean: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["mean"]
    return mean


def with_new_phrases(weights: dict[str, Tensor], begun: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose vocabulary has every phrase: a new one is what it is `LIKE`, or as a network has it that begins."""
    grown = dict(weights)
    for name in (_NANO + EMBED, _NANO + LM_HEAD):
        if name not in weights or len(weights[name]) == VOCABULARY:
            continue
        known = len(weights[name])
        table = torch.cat([weights[name], begun[name][known:].to(weights[name])])
        for number in range(known, VOCABULARY):
            if older := LIKE.get(PHRASES[number - VOCABULARY]):
                table[number] = table[phrase_ids([older])[0]]
        grown[name] = table
    return grown


def read_nano(path: Path) -> Nano:
    """The network out of a training state or a model folder."""
    weights = {name.removeprefix(_NANO): t for name, t in read_weights(path).items() if name.startswith(_NANO)}
    if not weights:
        raise OptionError(f"{path} has training aids alone; give what training saved (.pt) or a model folder")
    nano = Nano(nano_dims(vocabulary=len(weights[EMBED])))
    nano.load_state_dict(weights)
    return nano


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
