"""The vision tower in float32 without a graph: CLIP layer by layer, the HD layout, the projector.

Computes what export/vision.py writes, on real crops only. Every product with a quantisable weight is a caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..hd import CROP, HdImage, HdPlan
from .checkpoint import Checkpoint
from .dims import CLIP, PATCHES, VISION, clip_layer_prefix
from .forward_decoder import Array, Multiply, attend, sigmoid
from .matrix import Matrix

_EPSILON = np.float32(1e-5)
_QUICK_GELU = np.float32(1.702)
_POSITIONS = PATCHES * PATCHES + 1
_SIDE = PATCHES // 2


def run_vision(checkpoint: Checkpoint, images: Sequence[HdImage], multiply: Multiply) -> list[Array]:
    """Encode images: the decoder's input for each, [image tokens, hidden]."""
    tower = _Tower(checkpoint, multiply)
    hidden = tower.embed(np.concatenate([image.crops for image in images]).astype(np.float32, copy=False))
    for layer in range(checkpoint.dims.clip.used_layers):
        tower.apply(hidden, clip_layer_prefix(layer))
    bank = tower.project(hidden)
    features, first = [], 0
    for image in images:
        features.append(bank[_token_rows(image.plan, first, separator=len(bank) - 2)])
        first += image.plan.crops
    return features


class _Tower:
    """Hidden states are [crops * 577, width]; each crop is a sequence that begins with its class token."""

    def __init__(self, checkpoint: Checkpoint, multiply: Multiply) -> None:
        self._checkpoint, self._multiply, self._clip = checkpoint, multiply, checkpoint.dims.clip

    def embed(self, crops: Array) -> Array:
        """Crops [M, 3, 336, 336] -> normed patch, class and position embeddings."""
        count, patch, width = len(crops), CROP // PATCHES, self._clip.hidden_size
        split = crops.reshape(count, 3, PATCHES, patch, PATCHES, patch).transpose(0, 2, 4, 1, 3, 5)
        kernel = self._read(f"{CLIP}embeddings.patch_embedding.weight").reshape(width, -1)
        states = np.empty((count, _POSITIONS, width), dtype=np.float32)
        states[:, 0] = self._read(f"{CLIP}embeddings.class_embedding")
        states[:, 1:] = (split.reshape(count * PATCHES * PATCHES, -1) @ kernel.T).reshape(count, -1, width)
        states += self._read(f"{CLIP}embeddings.position_embedding.weight")
        return self._norm(states.reshape(-1, width), f"{CLIP}pre_layrnorm")

    def apply(self, hidden: Array, prefix: str) -> None:
        """Add one layer's attention and MLP to the residual stream `hidden`, in place."""
        crops = np.arange(0, len(hidden), _POSITIONS)
        parts = [f"{prefix}self_attn.{part}_proj" for part in ("q", "k", "v")]
        qkv = self._linear(self._norm(hidden, f"{prefix}layer_norm1"), parts, crops)
        hidden += self._linear(self._attend(qkv), [f"{prefix}self_attn.out_proj"], crops)
        del qkv
        inner = self._linear(self._norm(hidden, f"{prefix}layer_norm2"), [f"{prefix}mlp.fc1"], crops)
        inner *= sigmoid(_QUICK_GELU * inner)
        hidden += self._linear(inner, [f"{prefix}mlp.fc2"], crops)

    def project(self, hidden: Array) -> Array:
        """Merge patches 2 x 2 and project them: a row each, then those of the two separators, sub_GN and glb_GN."""
        width = self._clip.hidden_size
        patches = hidden.reshape(-1, _POSITIONS, width)[:, 1:].reshape(-1, _SIDE, 2, _SIDE, 2, width)
        merged = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4 * width)
        separators = [self._read(f"{VISION}{name}_GN").reshape(1, -1) for name in ("sub", "glb")]
        bank = np.concatenate([merged, *separators])
        alone = np.array([len(bank) - 2, len(bank) - 1])  # every line ends with one: no sample may miss them
        inner = _gelu(self._linear(bank, [f"{VISION}img_projection.0"], alone))
        return self._linear(inner, [f"{VISION}img_projection.2"], alone)

    def _attend(self, qkv: Array) -> Array:
        width, heads = self._clip.hidden_size, self._clip.num_attention_heads
        out = np.empty((len(qkv), width), dtype=np.float32)
        for begin in range(0, len(qkv), _POSITIONS):
            rows = slice(begin, begin + _POSITIONS)
            parts = qkv[rows].reshape(_POSITIONS, 3, heads, -1).transpose(1, 2, 0, 3)
            out[rows] = attend(*parts, causal=False).transpose(1, 0, 2).reshape(_POSITIONS, width)
        return out

    def _linear(self, x: Array, names: Sequence[str], firsts: npt.NDArray[np.intp]) -> Array:
        out = self._multiply(Matrix.whole(self._checkpoint, *(f"{name}.weight" for name in names)), x, firsts)
        out += np.concatenate([self._read(f"{name}.bias") for name in names])
        return out

    def _norm(self, x: Array, name: str) -> Array:
        centred: Array = x - x.mean(axis=1, keepdims=True)
        centred /= np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
        centred *= self._read(f"{name}.weight")
        centred += self._read(f"{name}.bias")
        return centred

    def _read(self, name: str) -> Array:
        return self._checkpoint.float32(name)


def _gelu(x: Array) -> Array:
    import torch  # numpy has no error function

    value: Array = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    return value


def _token_rows(plan: HdPlan, first_crop: int, separator: int) -> npt.NDArray[np.intp]:
    """The bank's row of every token of an image: the crops as one image, `glb_GN`, the global crop.

    `separator` is the row of `sub_GN`, which ends every line; that of `glb_GN` follows it.
    """
    rows = np.arange(plan.crops * _SIDE * _SIDE).reshape(-1, _SIDE, _SIDE) + first_crop * _SIDE * _SIDE
    crops = rows[1:].reshape(plan.rows, plan.columns, _SIDE, _SIDE).transpose(0, 2, 1, 3)

    def lines(of: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return np.pad(of, ((0, 0), (0, 1)), constant_values=separator).reshape(-1)

    whole = lines(crops.reshape(plan.rows * _SIDE, -1))
    return np.concatenate([whole, np.array([separator + 1]), lines(rows[0])])
