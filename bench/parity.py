"""Measures how close a model folder is to the PyTorch reference on the same checkpoint: ids, pixels, logits, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from ..backend import ModelInputs
from ..export.checkpoint import Checkpoint
from ..export.observe import open_all_positions
from ..genai.backend import GenaiBackend
from ..models.folder import GENAI_CONFIG, ModelDir
from ..sampling import TokenChooser
from .reference import ReferenceModel

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences between ours and the reference.

    `pixel_max`: largest difference between the crops. `logit_max`, `cosine_mean`, `cosine_least`, `kl_mean` (nats, from
    the reference to ours) and `top1_agreement` are over the logits of every prompt position. `first_difference`: index
    of the first greedy token that differs, None if all `tokens` are equal; the end of the turn is the last compared.
    """

    ids_equal: bool
    pixel_max: float
    logit_max: float
    cosine_mean: float
    cosine_least: float
    kl_mean: float
    top1_agreement: float
    tokens: int
    first_difference: int | None


def measure_parity(
    checkpoint: Path, model: Path, prompt: str, images: Sequence[Image.Image], *, num_crops: int, new_tokens: int
) -> Parity:
    """Compare a model folder with the checkpoint it was built from, in fp32 on the CPU."""
    reference = ReferenceModel(Checkpoint.open(checkpoint))
    backend = GenaiBackend(ModelDir.open(model), "cpu")
    theirs, ours = reference.preprocess(prompt, images, num_crops), backend.preprocess(prompt, images, num_crops)
    expected = reference.logits(theirs).numpy()
    found = compute_logits(model, ours)
    generation = backend.start(ours, TokenChooser(), new_tokens)
    tokens = [generation.step() for _ in range(new_tokens)]
    generation.close()
    backend.close()
    wanted = reference.greedy(theirs, new_tokens)
    # Nothing after the end of the turn is compared: there genai pads, and the reference goes on generating.
    ends = [n for n, token in enumerate(wanted) if token in backend.model.eos_token_ids]
    wanted, tokens = (ids[: ends[0] + 1] if ends else ids for ids in (wanted, tokens))
    differing = [n for n, (a, b) in enumerate(zip(wanted, tokens, strict=True)) if a != b]
    near = measure_closeness(expected, found)
    return Parity(
        ids_equal=bool(np.array_equal(theirs.input_ids, ours.input_ids)),
        pixel_max=_compare_pixels(theirs, ours),
        logit_max=near["logit_max"],
        cosine_mean=near["cosine_mean"],
        cosine_least=near["cosine_least"],
        kl_mean=near["kl_mean"],
        top1_agreement=near["top1_agreement"],
        tokens=len(wanted),
        first_difference=differing[0] if differing else None,
    )


def measure_closeness(expected: Array, found: Array) -> dict[str, float]:
    """Measure the distances between logits [L, vocab], position by position."""
    cosines = _compute_cosines(expected, found)
    return {
        "logit_max": float(np.abs(expected - found).max()),
        "cosine_mean": float(cosines.mean()),
        "cosine_least": float(cosines.min()),
        "kl_mean": float(_compute_kl(expected, found).mean()),
        "top1_agreement": float((expected.argmax(-1) == found.argmax(-1)).mean()),
    }


def compute_logits(model: Path, inputs: ModelInputs) -> Array:
    """Run the folder's graphs one after the other, without genai and without a cache: logits, float32 [L, vocab]."""
    folder = ModelDir.open(model)
    hidden = _embed(folder, inputs)
    decoder = _read_config(folder)["decoder"]
    session = open_all_positions(folder.path / decoder["filename"])
    length = len(inputs.input_ids)
    feeds: dict[str, Any] = {"inputs_embeds": hidden, "attention_mask": np.ones((1, length), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            kind = np.float16 if "float16" in value.type else np.float32
            feeds[value.name] = np.zeros((1, decoder["num_key_value_heads"], 0, decoder["head_size"]), kind)
    (logits,) = session.run(["logits"], feeds)
    return np.asarray(logits[0], dtype=np.float32)


def _embed(folder: ModelDir, inputs: ModelInputs) -> npt.NDArray[Any]:
    embedding = _open_session(folder, "embedding")
    shape = next(value.shape for value in embedding.get_inputs() if value.name == "image_features")
    kind = np.dtype(folder.pixel_dtype or "float32")
    features = np.zeros((0, shape[1]), kind)
    if inputs.pixel_values is not None:
        vision = _open_session(folder, "vision")
        pixels = inputs.pixel_values.astype(kind)
        (features,) = vision.run(None, {"pixel_values": pixels, "image_sizes": inputs.image_sizes})
    ids = inputs.input_ids[np.newaxis].astype(np.int64)
    (hidden,) = embedding.run(None, {"input_ids": ids, "image_features": features})
    return np.asarray(hidden)


def _open_session(folder: ModelDir, part: str) -> onnxruntime.InferenceSession:
    graph = folder.path / _read_config(folder)[part]["filename"]
    return onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])


def _read_config(folder: ModelDir) -> dict[str, Any]:
    model: dict[str, Any] = json.loads((folder.path / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]
    return model


def _compare_pixels(a: ModelInputs, b: ModelInputs) -> float:
    if a.pixel_values is None or b.pixel_values is None:
        return 0.0
    crops = min(a.pixel_values.shape[1], b.pixel_values.shape[1])  # the reference pads up to num_crops
    # The reference's in our type, which may be float16, so that what is left is a difference.
    theirs, ours = a.pixel_values[:, :crops].astype(b.pixel_values.dtype), b.pixel_values[:, :crops]
    return float(np.abs(theirs.astype(np.float32) - ours.astype(np.float32)).max())


def _compute_cosines(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


def _compute_kl(a: Array, b: Array) -> Array:
    log_a, log_b = (x - x.max(-1, keepdims=True) for x in (a.astype(np.float64), b.astype(np.float64)))
    log_a -= np.log(np.exp(log_a).sum(-1, keepdims=True))
    log_b -= np.log(np.exp(log_b).sum(-1, keepdims=True))
    return np.asarray((np.exp(log_a) * (log_a - log_b)).sum(-1), dtype=np.float32)
