"""The vision graph: CLIP on the real crops, the HD layout, the projector.

    pixel_values [N, K, 3, 336, 336] float, image_sizes [N, 2] int64 -> image_features [T, hidden] float

Written node by node, so that only what is used is computed: crops that are padding never enter CLIP, its last layer and
`post_layernorm` never run, and each patch is projected once. Attention is `com.microsoft.MultiHeadAttention`, which
both the CPU and the CUDA provider fuse. The patch embedding is a MatMul over reshaped pixels: no convolution, so no
cuDNN. Source: the model's modelling code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..hd import CROP
from .checkpoint import Checkpoint
from .dims import CLIP, PATCHES, VISION, clip_layer_prefix
from .graph import MICROSOFT, GraphWriter
from .matrix import Matrix
from .quantize import BlockQuantization
from .vision_layout import SIDE, LayoutWriter

_EPSILON = 1e-5
_QUICK_GELU = 1.702
_POSITIONS = PATCHES * PATCHES + 1


def write_vision(
    checkpoint: Checkpoint,
    path: Path,
    *,
    dtype: npt.DTypeLike,
    quantization: BlockQuantization | None = None,
    rows: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Write the graph and its data file; `dtype` is the type of pixels, features and unquantised weights.

    `rows` names the matrices, by the checkpoint's (first) tensor, that are multiplied in row-wise int8, and their
    outlier columns.
    """
    with GraphWriter(path, dtype) as graph:
        pixels = graph.input("pixel_values", graph.float, ["num_images", "num_crops", 3, CROP, CROP])
        sizes = graph.input("image_sizes", ir.DataType.INT64, ["num_images", 2])
        layout = LayoutWriter(graph, sizes)
        tower = _Tower(graph, checkpoint, quantization, rows or {})
        features = tower.encode(_real_crops(graph, pixels, layout))
        bank, patch_rows = tower.project(features)
        tokens = graph.op("Gather", bank, layout.token_rows(patch_rows), axis=0)
        hidden = checkpoint.dims.decoder.hidden_size
        graph.output(tokens, "image_features", graph.float, ["num_image_tokens", hidden])


def _real_crops(graph: GraphWriter, pixels: ir.Value, layout: LayoutWriter) -> ir.Value:
    slots = graph.op("Squeeze", graph.op("Shape", pixels, start=1, end=2), graph.ints(0))
    flat = graph.op("Reshape", pixels, graph.ints(-1, 3, CROP, CROP))
    return graph.op("Gather", flat, layout.real_crops(slots), axis=0)


class _Tower:
    """CLIP and projector; hidden states are kept as [crops * 577, width], rows being what every MatMul wants."""

    def __init__(
        self,
        graph: GraphWriter,
        checkpoint: Checkpoint,
        quantization: BlockQuantization | None,
        rows: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._graph, self._checkpoint, self._quantization, self._rows = graph, checkpoint, quantization, rows
        self._clip = checkpoint.dims.clip

    def encode(self, crops: ir.Value) -> ir.Value:
        """Crops [M, 3, 336, 336] -> hidden states of CLIP's layer -2, [M * 577, width]."""
        hidden = self._norm(self._embed(crops), f"{CLIP}pre_layrnorm")
        branch: ir.Value | None = None
        for layer in range(self._clip.used_layers):
            prefix = clip_layer_prefix(layer)
            normed, hidden = self._skip_norm(hidden, branch, f"{prefix}layer_norm1")
            branch = self._attention(normed, f"{prefix}self_attn.")
            normed, hidden = self._skip_norm(hidden, branch, f"{prefix}layer_norm2")
            inner = self._linear(normed, f"{prefix}mlp.fc1")
            branch = self._linear(
                self._graph.op("QuickGelu", inner, domain=MICROSOFT, alpha=_QUICK_GELU), f"{prefix}mlp.fc2"
            )
        return self._graph.op("Add", hidden, branch)

    def project(self, hidden: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Merge patches 2 x 2, append both separators, project -> rows [P + 2, hidden], and P (a scalar)."""
        graph, width = self._graph, self._clip.hidden_size
        states = graph.op("Reshape", hidden, graph.ints(-1, _POSITIONS, width))
        patches = graph.op("Slice", states, graph.ints(1), graph.ints(_POSITIONS), graph.ints(1))
        blocks = graph.op("Reshape", patches, graph.ints(-1, SIDE, 2, SIDE, 2, width))
        rows = graph.op("Transpose", blocks, perm=[0, 1, 3, 2, 4, 5])
        merged = graph.op("Reshape", rows, graph.ints(-1, 4 * width))
        separators = [self._weight(f"{VISION}{name}_GN", (1, 4 * width)) for name in ("sub", "glb")]
        bank = graph.op("Concat", merged, *separators, axis=0)
        inner = graph.op("Gelu", self._linear(bank, f"{VISION}img_projection.0"), domain=MICROSOFT)
        patch_rows = graph.op("Squeeze", graph.op("Shape", merged, start=0, end=1), graph.ints(0))
        return self._linear(inner, f"{VISION}img_projection.2"), patch_rows

    def _embed(self, crops: ir.Value) -> ir.Value:
        """Patch, class and position embeddings -> [M * 577, width]."""
        graph, width, patch = self._graph, self._clip.hidden_size, self._clip.patch_size
        values = 3 * patch * patch
        split = graph.op("Reshape", crops, graph.ints(-1, 3, PATCHES, patch, PATCHES, patch))
        patches = graph.op("Reshape", graph.op("Transpose", split, perm=[0, 2, 4, 1, 3, 5]), graph.ints(-1, values))
        name = f"{CLIP}embeddings.patch_embedding.weight"
        kernel = graph.weight(name, self._checkpoint.float32(name).reshape(width, values).T)
        embedded = graph.op("Reshape", graph.op("MatMul", patches, kernel), graph.ints(-1, PATCHES * PATCHES, width))
        positions = self._checkpoint.float32(f"{CLIP}embeddings.position_embedding.weight")
        start = self._checkpoint.float32(f"{CLIP}embeddings.class_embedding") + positions[0]
        first = graph.weight("class_and_position", start.reshape(1, 1, width))
        placed = graph.op("Add", embedded, graph.weight("positions", positions[None, 1:]))
        count = graph.op("Shape", crops, start=0, end=1)
        firsts = graph.op("Expand", first, graph.op("Concat", count, graph.ints(1, width), axis=0))
        states = graph.op("Concat", firsts, placed, axis=1)
        return graph.op("Reshape", states, graph.ints(-1, width))

    def _attention(self, x: ir.Value, prefix: str) -> ir.Value:
        graph, width = self._graph, self._clip.hidden_size
        names = [f"{prefix}{part}_proj" for part in ("q", "k", "v")]
        matrix = Matrix.whole(self._checkpoint, *(f"{name}.weight" for name in names))
        bias = np.concatenate([self._checkpoint.float32(f"{name}.bias") for name in names])
        fused = self._multiply(x, f"{prefix}qkv_proj", matrix, bias)
        states = graph.op("Reshape", fused, graph.ints(-1, _POSITIONS, 3 * width))
        query, key, value = graph.ops("Split", states, outputs=3, axis=2, num_outputs=3)
        heads = self._clip.num_attention_heads
        mixed = graph.op("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=heads)
        return self._linear(graph.op("Reshape", mixed, graph.ints(-1, width)), f"{prefix}out_proj")

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        matrix = Matrix.whole(self._checkpoint, f"{name}.weight")
        return self._multiply(x, name, matrix, self._checkpoint.float32(f"{name}.bias"))

    def _multiply(self, x: ir.Value, name: str, matrix: Matrix, bias: npt.NDArray[np.float32]) -> ir.Value:
        outliers = self._rows.get(matrix.parts[0][0])
        return self._graph.linear(x, name, matrix, bias, self._quantization, outliers)

    def _skip_norm(self, x: ir.Value, branch: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """Add a branch to the residual stream and normalise: (normalised, the new residual stream)."""
        if branch is None:
            return self._norm(x, name), x
        normed, _, _, total = self._graph.ops(
            "SkipLayerNormalization",
            *(x, branch, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")),
            outputs=4,
            domain=MICROSOFT,
            epsilon=_EPSILON,
        )
        return normed, total

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=_EPSILON)

    def _weight(self, name: str, shape: tuple[int, ...] | None = None) -> ir.Value:
        values = self._checkpoint.float32(name)
        return self._graph.weight(name, values if shape is None else values.reshape(shape))
