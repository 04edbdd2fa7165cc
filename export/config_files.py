"""The files beside the graphs: genai_config.json, processor_config.json, phi3v.json and the tokenizer's own.

Source of the layout: onnxruntime-genai's config reader for models of type "phi3v".
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..models.folder import GENAI_CONFIG
from ..models.manifest import Manifest
from .checkpoint import BOS_TOKEN, END_TOKENS, Checkpoint

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json", "tokenizer.model")
_PAD_TOKEN = "<|endoftext|>"


def write_genai_config(checkpoint: Checkpoint, folder: Path, *, device: str) -> None:
    """Write what genai loads first. Only our own manifest is written after it."""
    decoder = checkpoint.dims.decoder
    ids = checkpoint.token_ids
    own_options = {"session_options": {"provider_options": _providers(device)}} if device == "cuda" else {}
    model = {
        "bos_token_id": ids[BOS_TOKEN],
        "context_length": decoder.max_position_embeddings,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": _providers(device)},
            "filename": "text.onnx",
            "head_size": decoder.head_size,
            "hidden_size": decoder.hidden_size,
            "inputs": {
                "inputs_embeds": "inputs_embeds",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "num_attention_heads": decoder.num_attention_heads,
            "num_hidden_layers": decoder.num_hidden_layers,
            "num_key_value_heads": decoder.num_key_value_heads,
        },
        "embedding": {
            "filename": "embedding.onnx",
            "inputs": {"input_ids": "input_ids", "image_features": "image_features"},
            "outputs": {"inputs_embeds": "inputs_embeds"},
            **own_options,
        },
        "vision": {
            "filename": "vision.onnx",
            "config_filename": "processor_config.json",
            "inputs": {"pixel_values": "pixel_values", "image_sizes": "image_sizes"},
            "outputs": {"image_features": "image_features"},
            **own_options,
        },
        "eos_token_id": [ids[token] for token in END_TOKENS],
        "pad_token_id": ids[_PAD_TOKEN],
        "type": "phi3v",
        "vocab_size": decoder.vocab_size,
    }
    search = {
        "do_sample": False,
        "max_length": decoder.max_position_embeddings,
        "min_length": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    }
    _write(folder / GENAI_CONFIG, {"model": model, "search": search})


def _providers(device: str) -> list[dict[str, dict[str, str]]]:
    """What a graph runs on without a word from us.

    Vision and embedding say so too: a graph that does not takes the decoder's providers, and with them the CUDA graph
    that a decoder may be asked for and the others cannot be captured in.
    """
    return [{"cuda": {"enable_cuda_graph": "0"}}] if device == "cuda" else []


def write_processor_config(folder: Path, num_crops: int) -> None:
    """Write how genai's own image processor would prepare an image; our preprocessing reads `num_crops` from it."""
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("decode_image", "DecodeImage", {"color_space": "BGR"}),
        ("convert_to_rgb", "ConvertRGB", {}),
        ("phi3_image_transform", "Phi3ImageTransform", {"num_crops": num_crops, "num_img_tokens": 144}),
    ]
    transforms = []
    for name, kind, attributes in steps:
        operation: dict[str, Any] = {"name": name, "domain": "com.microsoft.extensions", "type": kind}
        transforms.append({"operation": operation | ({"attrs": attributes} if attributes else {})})
    _write(folder / "processor_config.json", {"processor": {"name": "image_processing", "transforms": transforms}})


def copy_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the checkpoint's tokenizer files unchanged."""
    for name in (*_TOKENIZER_FILES, *_OPTIONAL_TOKENIZER_FILES):
        if name in _TOKENIZER_FILES or (checkpoint.path / name).is_file():
            shutil.copyfile(checkpoint.path / name, folder / name)


def write_manifest(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    precision: str,
    device: str,
    devices: tuple[str, ...],
    pixel_dtype: str,
    block_size: int | None,
    prefill: dict[str, Any] | None = None,
) -> None:
    """Write what the folder was made from, and the size and SHA-256 of every file in it.

    `prefill` describes how prompts are multiplied, where that is another way than a token's.
    """
    decoder = checkpoint.dims.decoder
    element_bytes = 2 if pixel_dtype == "float16" else 4
    manifest = Manifest(
        name=checkpoint.path.resolve().name,
        precision=precision,
        device=device,
        devices=devices,
        pixel_dtype=pixel_dtype,
        original_context_length=None if decoder.long_rope is None else decoder.long_rope.original,
        kv_bytes_per_token=2 * decoder.num_hidden_layers * decoder.kv_size * element_bytes,
        synthetic=checkpoint.synthetic,
        extra={"block_size": block_size, "num_crops": checkpoint.num_crops} | ({"prefill": prefill} if prefill else {}),
    )
    manifest.with_files_of(folder).write(folder)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
