"""The decoder in float32 without a graph: layer by layer through the checkpoint, a piece of one matrix in memory.

Knows nothing of quantisation. Every product with a weight is a caller's, who so sees each matrix beside its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .checkpoint import Checkpoint
from .dims import DecoderDims, layer_prefix
from .matrix import Matrix

Array = npt.NDArray[np.float32]

Multiply = Callable[[Matrix, Array, npt.NDArray[np.intp]], Array]
"""(weight, inputs [rows, columns], the input rows that begin a sequence) -> inputs @ weight.T."""


def run_decoder(checkpoint: Checkpoint, prompts: Sequence[Array], multiply: Multiply) -> list[Array]:
    """Run every layer on embedded prompts, each [length, hidden]: the hidden states before the final norm."""
    ends = np.cumsum([len(prompt) for prompt in prompts])
    layers = _Layers(checkpoint, multiply, [len(prompt) for prompt in prompts])
    hidden = np.concatenate(prompts)
    for layer in range(checkpoint.dims.decoder.num_hidden_layers):
        layers.apply(hidden, layer_prefix(layer))
    return np.split(hidden, ends[:-1])


class _Layers:
    """The tokens of all prompts lie one under the other; only attention needs to know where a prompt ends."""

    def __init__(self, checkpoint: Checkpoint, multiply: Multiply, lengths: Sequence[int]) -> None:
        self._checkpoint, self._multiply = checkpoint, multiply
        self._dims = checkpoint.dims.decoder
        self._slices = [slice(end - length, end) for length, end in zip(lengths, np.cumsum(lengths), strict=True)]
        self._firsts = np.array([rows.start for rows in self._slices], dtype=np.intp)
        self._rotations = [rotary_caches(self._dims, length) for length in lengths]

    def apply(self, hidden: Array, prefix: str) -> None:
        """Add one layer's attention and MLP to the residual stream `hidden` [tokens, hidden], in place."""
        qkv = self._linear(self._norm(hidden, f"{prefix}input_layernorm"), f"{prefix}self_attn.qkv_proj")
        hidden += self._linear(self._attend(qkv), f"{prefix}self_attn.o_proj")
        del qkv
        gate_up = self._linear(self._norm(hidden, f"{prefix}post_attention_layernorm"), f"{prefix}mlp.gate_up_proj")
        gate, up = np.split(gate_up, 2, axis=1)
        hidden += self._linear(gate * sigmoid(gate) * up, f"{prefix}mlp.down_proj")

    def _linear(self, x: Array, name: str) -> Array:
        return self._multiply(Matrix.whole(self._checkpoint, f"{name}.weight"), x, self._firsts)

    def _norm(self, x: Array, name: str) -> Array:
        scale = 1 / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(self._dims.rms_norm_eps))
        normed: Array = x * scale * self._checkpoint.float32(f"{name}.weight")
        return normed

    def _attend(self, qkv: Array) -> Array:
        dims = self._dims
        out = np.empty((len(qkv), dims.hidden_size), dtype=np.float32)
        for rows, rotation in zip(self._slices, self._rotations, strict=True):
            heads = qkv[rows].reshape(rows.stop - rows.start, -1, dims.head_size).transpose(1, 0, 2)
            last_key = dims.num_attention_heads + dims.num_key_value_heads
            queries, keys, values = np.split(heads, [dims.num_attention_heads, last_key])
            mixed = attend(rotate(queries, *rotation), rotate(keys, *rotation), values, causal=True)
            out[rows] = mixed.transpose(1, 0, 2).reshape(rows.stop - rows.start, -1)
        return out


def attend(queries: Array, keys: Array, values: Array, *, causal: bool) -> Array:
    """Attention: queries [heads, length, size], keys and values [kv heads, length, size]."""
    import torch  # fused and in blocks: numpy takes ten times as long, and memory for every score

    shared = len(queries) // len(keys)
    parts = queries, np.repeat(keys, shared, axis=0), np.repeat(values, shared, axis=0)
    query, key, value = (torch.from_numpy(np.ascontiguousarray(part))[None] for part in parts)
    mixed: Array = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)[0].numpy()
    return mixed


def rotary_caches(dims: DecoderDims, length: int) -> tuple[Array, Array]:
    """Cosines and sines [length, head size] of a prompt that long; its length decides between LongRoPE's factors."""
    half = np.arange(0, dims.head_size, 2, dtype=np.float32) / np.float32(dims.head_size)
    wavelengths: Array = np.power(np.float32(dims.rope_theta), half)
    scale = 1.0
    if (rope := dims.long_rope) is not None:
        factors = rope.long_factor if length > rope.original else rope.short_factor
        wavelengths *= np.array(factors, dtype=np.float32)
        scale = rope.attention_factor or _attention_factor(dims.max_position_embeddings, rope.original)
    angles = np.arange(length, dtype=np.float32)[:, None] * (1 / wavelengths)
    both = np.concatenate([angles, angles], axis=1)
    return np.cos(both) * np.float32(scale), np.sin(both) * np.float32(scale)


def rotate(heads: Array, cosines: Array, sines: Array) -> Array:
    """Turn the two halves of each head [heads, length, size] against each other by the position's angles."""
    half = heads.shape[-1] // 2
    turned = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    turned *= sines
    turned += heads * cosines
    return turned


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    import torch

    value: Array = torch.sigmoid(torch.from_numpy(x)).numpy()
    return value


def _attention_factor(context: int, original: int) -> float:
    longer = context / original
    return 1.0 if longer <= 1 else math.sqrt(1 + math.log(longer) / math.log(original))
