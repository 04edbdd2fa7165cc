"""Write the trained network as a checkpoint folder in the original layout, ready for the ordinary exporter."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..dims import ModelDims
from ..safetensors_file import write_file
from ..synthetic import original_config
from .network import Nano
from .vocabulary import Vocabulary, write_vocabulary


def write_checkpoint(nano: Nano, folder: Path) -> Path:
    """Weights in float32, config.json, the picture processor's settings (one crop) and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in nano.state_dict().items()}
    entries = [(name, values.shape, values.dtype) for name, values in tensors.items()]
    write_file(folder / "model.safetensors", entries, tensors.__getitem__)
    write_vocabulary(folder)
    end_of_text = Vocabulary.read(folder).tokenizer.control_id("<|endoftext|>")
    _write(folder / "config.json", original_config(nano.dims, "float32", end_of_text))
    _write(folder / "preprocessor_config.json", {"num_crops": 1, "num_img_tokens": 144})
    return folder


def read_training(path: Path, dims: ModelDims) -> Nano:
    """The network out of a state that training saved."""
    nano = Nano(dims)
    nano.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["nano"])
    return nano


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
