"""Makes a folder that OpenVINO GenAI's VLMPipeline loads: `phi3v bench openvino-folder CHECKPOINT OUT`.

The usual tool, optimum-intel, needs the model's remote code and an older transformers. This converts the modules of the
PyTorch reference instead, into the same graphs under the same names, and compresses the weights as optimum-intel does:
the decoder to 4 bits, asymmetric in groups, with an 8-bit head, and everything else to 8 bits. CLIP must be as wide as
ViT-L/14-336, because that width is built into OpenVINO GenAI.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ...errors import CheckpointError, OptionError
from ...export.checkpoint import BOS_TOKEN, END_TOKENS, Checkpoint
from ...export.dims import PATCHES
from ..extras import require_extra
from ..program import run_command
from ..reference import ReferenceModel
from .graphs import LANGUAGE, list_graphs
from .subject import import_openvino

BITS = (4, 8, 32)
"""Bits per decoder weight; 32 leaves everything in float32, to compare tokens with the reference's."""

_CLIP_WIDTH = 1024
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_folder(
    checkpoint: Path, out: Path, *, bits: int = 4, group_size: int = 128, num_crops: int | None = None
) -> Path:
    """Write the folder; needs memory for the fp32 weights. `num_crops` None takes the checkpoint's own.

    Raises MissingDependencyError, CheckpointError, and OptionError if `out` is not empty.
    """
    require_extra("bench-openvino", "torch", "transformers", "openvino_genai", "openvino_tokenizers", "nncf")
    if bits not in BITS:
        raise OptionError(f"bits is {bits}; allowed: {', '.join(map(str, BITS))}")
    if out.exists() and any(out.iterdir()):
        raise OptionError(f"{out} is not empty; give another folder")
    import_openvino()
    source = Checkpoint.open(checkpoint)
    if source.dims.clip.hidden_size != _CLIP_WIDTH:
        raise CheckpointError(f"CLIP is {source.dims.clip.hidden_size} wide; OpenVINO GenAI takes {_CLIP_WIDTH} only")
    out.mkdir(parents=True, exist_ok=True)
    model = ReferenceModel(source)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every shape it fixes; tests compare the tokens
        for name, make in list_graphs(model, source.dims).items():
            own = bits if name == LANGUAGE else max(bits, 8)
            _save(_compress(make(), own, name == LANGUAGE, group_size), out / f"openvino_{name}_model.xml")
        _write_tokenizer(source, out)
    _write_configs(source, model, out, num_crops or source.num_crops)
    return out


def _compress(graph: Any, bits: int, is_decoder: bool, group_size: int) -> Any:
    """Compress the graph's weights with NNCF, in the modes that optimum-intel uses."""
    if bits == 32:
        return graph
    import nncf

    modes = nncf.CompressWeightsMode
    if bits == 4:
        return nncf.compress_weights(graph, mode=modes.INT4_ASYM, group_size=group_size, ratio=1.0)
    return nncf.compress_weights(graph, mode=modes.INT8_ASYM if is_decoder else modes.INT8_SYM)


def _write_tokenizer(source: Checkpoint, out: Path) -> None:
    from openvino_tokenizers import convert_tokenizer

    names = {"bos_token": BOS_TOKEN, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"}
    kind: Any = PreTrainedTokenizerFast
    tokenizer = kind(tokenizer_file=str(source.path / "tokenizer.json"), **names)
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    _save(encoder, out / "openvino_tokenizer.xml")
    _save(decoder, out / "openvino_detokenizer.xml")


def _write_configs(source: Checkpoint, model: ReferenceModel, out: Path, num_crops: int) -> None:
    """Write config.json, from which OpenVINO GenAI reads the two learned separators, and the other settings."""
    separators = {name: getattr(model.vision, name).tolist() for name in ("sub_GN", "glb_GN")}
    _dump(out / "config.json", source.config | {"model_type": "phi3_v"} | separators)
    _dump(
        out / "preprocessor_config.json",
        {"num_crops": num_crops, "num_img_tokens": (PATCHES // 2) ** 2, "image_mean": _MEAN, "image_std": _STD},
    )
    ends = sorted(source.token_ids[token] for token in END_TOKENS)
    _dump(out / "generation_config.json", {"eos_token_id": ends, "do_sample": False})


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _save(graph: Any, path: Path) -> None:
    openvino, _ = import_openvino()
    openvino.save_model(graph, str(path), compress_to_fp16=False)


if __name__ == "__main__":
    run_command("openvino-folder")
