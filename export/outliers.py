"""Plants outliers into random weights: a few channels far larger than the rest, as trained models have them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .dims import CLIP, EMBED, FINAL_NORM, VISION, ModelDims
from .tokenizer import SPECIAL_TOKENS, first_special_id

OUTLIER_PLACES = ("norms", "projections", "tokens")
"""Channels of every layer's norms; of v and up projections, the inputs of o and down; of single tokens' embeddings."""

_CHANNELS = 4
_NORMS = ("layernorm.weight", "layer_norm1.weight", "layer_norm2.weight")
_CLIP_PROJECTIONS = ("self_attn.v_proj", "mlp.fc1")
_TOKENS = ("<|user|>", "<|assistant|>")


def check_outliers(outliers: Mapping[str, float]) -> None:
    """Raise OptionError unless each key is one of OUTLIER_PLACES and each factor 1 or more."""
    for place, factor in outliers.items():
        if place not in OUTLIER_PLACES:
            raise OptionError(f"outliers are planted in {place!r}; use one of {', '.join(OUTLIER_PLACES)}")
        if not 1 <= factor < float("inf"):
            raise OptionError(f"the factor of outliers is {factor}; allowed: 1 or more")


def outlier_channels(width: int) -> npt.NDArray[np.intp]:
    """The channels that are planted among `width`, ascending: the same in every tensor of that width."""
    return np.sort(np.random.default_rng(zlib.crc32(f"outliers of {width}".encode())).choice(width, _CHANNELS, False))


def plant_outliers(
    name: str, values: npt.NDArray[np.float32], dims: ModelDims, outliers: Mapping[str, float]
) -> npt.NDArray[np.float32]:
    """Multiply a tensor's outliers by their factors, in place; returns `values`."""
    hidden, inner = dims.decoder.hidden_size, dims.decoder.intermediate_size
    if name.endswith(_NORMS) or name == FINAL_NORM:
        values[outlier_channels(len(values))] *= outliers.get("norms", 1)
    elif name.endswith("self_attn.qkv_proj.weight"):
        kv = dims.decoder.kv_size
        values[hidden + kv + outlier_channels(kv)] *= outliers.get("projections", 1)
    elif name.endswith("mlp.gate_up_proj.weight"):
        values[inner + outlier_channels(inner)] *= outliers.get("projections", 1)
    elif name.startswith((CLIP, f"{VISION}img_projection.0")) and name.rpartition(".")[0].endswith(
        (*_CLIP_PROJECTIONS, "img_projection.0")
    ):
        values[outlier_channels(len(values))] *= outliers.get("projections", 1)
    elif name == EMBED:
        first = first_special_id(dims.decoder.vocab_size)
        tokens = [1, *(first + SPECIAL_TOKENS.index(token) for token in _TOKENS)]  # 1: the first of every prompt
        values[np.array(tokens)[:, np.newaxis], outlier_channels(hidden)] *= outliers.get("tokens", 1)
    return values
