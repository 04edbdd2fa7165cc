"""The network in PyTorch, its parameters under the original checkpoint's own names, so that saving it is exporting it.

Only what training needs: pictures of one crop, whose sub-crop equals the global crop, so the tower runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..dims import PATCHES, ClipDims, DecoderDims, ModelDims
from .bf16 import attend
from .canvas import CHARACTER_CLASSES, COLOUR_CLASSES, OBJECT_CLASSES, SLOTS
from .vocabulary import VOCABULARY

CELLS = PATCHES // 2
FEATURE_UNIT = 40.0
"""About the spread of the tower's features. The projector is trained in this unit; writing a checkpoint folds it in."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def nano_dims(
    width: int = 192,
    layers: int = 4,
    heads: int = 4,
    inner: int = 512,
    tower: int = 128,
    vocabulary: int = VOCABULARY,
) -> ModelDims:
    """nano's dimensions. A large rotary base keeps matching by content alive across a picture's tokens."""
    clip = ClipDims(tower, 4 * tower, num_hidden_layers=5, num_attention_heads=tower // 32)
    decoder = DecoderDims(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        rope_theta=1e6,
    )
    return ModelDims(clip, decoder)


class Nano(nn.Module):
    """The whole model; `state_dict` has the names and shapes of `export.dims.tensor_shapes`."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        self.dims = dims
        self.model = _Model(dims)
        self.lm_head = nn.Linear(dims.decoder.hidden_size, dims.decoder.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    @property
    def tower(self) -> Tower:
        """The vision tower."""
        tower = self.model.vision_embed_tokens.img_processor["vision_model"]
        assert isinstance(tower, Tower)
        return tower

    def picture_tokens(self, features: Tensor) -> Tensor:
        """Tower features [N, rows, columns, width] -> projected cells [N, rows/2, columns/2 + 1, hidden].

        The last column is the separator that ends every row.
        """
        vision = self.model.vision_embed_tokens
        count, rows, columns, width = features.shape
        cells = (features / FEATURE_UNIT).reshape(count, rows // 2, 2, columns // 2, 2, width).transpose(2, 3)
        ends = vision.sub_GN.expand(count, rows // 2, 1, -1)
        projected: Tensor = vision.img_projection(
            torch.cat([cells.reshape(count, rows // 2, columns // 2, -1), ends.to(features.dtype)], dim=2)
        )
        return projected

    def between_crops(self) -> Tensor:
        """The projected token that stands between the sub-crop and the global crop, [hidden]."""
        vision = self.model.vision_embed_tokens
        projected: Tensor = vision.img_projection(vision.glb_GN[0, 0])
        return projected

    def forward(self, embedded: Tensor, positions: Tensor, mask: Tensor, guides: Guides | None = None) -> Tensor:
        """Hidden states [B, L, hidden] of embedded tokens; `mask` [B, L, L] is true where a row may look."""
        rotation = rotary(positions, self.dims.decoder)
        for number, layer in enumerate(self.model.layers):
            watch = partial(guides.watch, number) if guides else None
            embedded = layer(embedded, rotation, mask, watch)
        normed: Tensor = self.model.norm(embedded)
        return normed


class _Model(nn.Module):
    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        decoder = dims.decoder
        self.embed_tokens = nn.Embedding(decoder.vocab_size, decoder.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        self.layers = nn.ModuleList(_DecoderLayer(decoder) for _ in range(decoder.num_hidden_layers))
        self.norm = nn.RMSNorm(decoder.hidden_size, eps=decoder.rms_norm_eps)
        self.vision_embed_tokens = _VisionEmbedding(dims)


class _VisionEmbedding(nn.Module):
    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        merged, hidden = 4 * dims.clip.hidden_size, dims.decoder.hidden_size
        self.img_processor = nn.ModuleDict({"vision_model": Tower(dims.clip)})
        self.sub_GN = nn.Parameter(torch.randn(1, 1, 1, merged) * 0.5)
        self.glb_GN = nn.Parameter(torch.randn(1, 1, merged) * 0.5)
        self.img_projection = nn.Sequential(nn.Linear(merged, hidden), nn.GELU(), nn.Linear(hidden, hidden))


class Tower(nn.Module):
    """CLIP's vision transformer, up to the layer whose states are the features."""

    def __init__(self, clip: ClipDims) -> None:
        super().__init__()
        width = clip.hidden_size
        self.embeddings = _ClipEmbeddings(clip)
        self.pre_layrnorm = nn.LayerNorm(width)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_ClipLayer(clip) for _ in range(clip.used_layers))})

    @property
    def layers(self) -> list[_ClipLayer]:
        """The layers, in order."""
        found = self.encoder["layers"]
        assert isinstance(found, nn.ModuleList)
        return [layer for layer in found if isinstance(layer, _ClipLayer)]

    def forward(self, pixels: Tensor, row: int = 0, column: int = 0) -> Tensor:
        """Normalised pixels [N, 3, 14h, 14w] -> features [N, h, w, width] of a window at patch row, column."""
        patches = self.embeddings.patch_embedding(pixels)
        count, width, high, wide = patches.shape
        table = self.embeddings.position_embedding.weight
        window = table[1:].view(PATCHES, PATCHES, width)[row : row + high, column : column + wide]
        states = patches.flatten(2).transpose(1, 2) + window.reshape(high * wide, width)
        first = (self.embeddings.class_embedding + table[0]).expand(count, 1, width)
        states = self.pre_layrnorm(torch.cat([first, states], dim=1))
        for layer in self.layers:
            states = layer(states)
        features: Tensor = states[:, 1:].reshape(count, high, wide, width)
        return features


class _ClipEmbeddings(nn.Module):
    def __init__(self, clip: ClipDims) -> None:
        super().__init__()
        width = clip.hidden_size
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, width, clip.patch_size, clip.patch_size, bias=False)
        self.position_embedding = nn.Embedding(PATCHES * PATCHES + 1, width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)


class _ClipLayer(nn.Module):
    def __init__(self, clip: ClipDims) -> None:
        super().__init__()
        width = clip.hidden_size
        self.heads = clip.num_attention_heads
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, clip.intermediate_size), "fc2": nn.Linear(clip.intermediate_size, width)}
        )
        with torch.no_grad():
            for linear in (self.self_attn["out_proj"], self.mlp["fc2"]):
                linear.weight.mul_(0.5)  # type: ignore[operator]

    def forward(self, states: Tensor) -> Tensor:
        normed = self.layer_norm1(states)
        queries, keys, values = (_heads(self.self_attn[f"{name}_proj"](normed), self.heads) for name in "qkv")
        mixed = attend(queries, keys, values)
        states = states + self.self_attn["out_proj"](mixed.transpose(1, 2).flatten(2))
        inner = self.mlp["fc1"](self.layer_norm2(states))
        moved: Tensor = states + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))
        return moved


class _DecoderLayer(nn.Module):
    def __init__(self, decoder: DecoderDims) -> None:
        super().__init__()
        hidden, inner = decoder.hidden_size, decoder.intermediate_size
        self.heads = decoder.num_attention_heads
        self.input_layernorm = nn.RMSNorm(hidden, eps=decoder.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=decoder.rms_norm_eps)
        self.self_attn = nn.ModuleDict({"qkv_proj": _plain(hidden, 3 * hidden), "o_proj": _plain(hidden, hidden, 0.5)})
        self.mlp = nn.ModuleDict({"gate_up_proj": _plain(hidden, 2 * inner), "down_proj": _plain(inner, hidden, 0.5)})

    def forward(self, states: Tensor, rotation: Rotation, mask: Tensor, watch: Watch | None = None) -> Tensor:
        fused = self.self_attn["qkv_proj"](self.input_layernorm(states))
        queries, keys, values = (_heads(part, self.heads) for part in fused.chunk(3, dim=-1))
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if watch is not None:
            watch(queries, keys, mask)
        mixed = attend(queries, keys, values, mask)
        states = states + self.self_attn["o_proj"](mixed.transpose(1, 2).flatten(2))
        gate, up = self.mlp["gate_up_proj"](self.post_attention_layernorm(states)).chunk(2, dim=-1)
        moved: Tensor = states + self.mlp["down_proj"](functional.silu(gate) * up)
        return moved


class Reader(nn.Module):
    """What training asks of the features beside answers: the characters, object and colour of every patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, CHARACTER_CLASSES * SLOTS + OBJECT_CLASSES + COLOUR_CLASSES)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [..., 3, 95], [..., 7] and [..., 9]."""
        logits = self.linear(self.norm(features))
        sizes = [CHARACTER_CLASSES * SLOTS, OBJECT_CLASSES, COLOUR_CLASSES]
        characters, objects, colours = logits.split(sizes, dim=-1)
        return characters.unflatten(-1, (SLOTS, CHARACTER_CLASSES)), objects, colours


class CellReader(nn.Module):
    """The same of the projected cells, and where each cell lies: so the decoder's input demonstrably holds all this."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        self.linear = nn.Linear(hidden, sum(_CELL_SIZES))

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [..., 12, 95] of the characters (patch by patch), [..., 2, 12] of row and column,

        [..., 4, 7] of the objects and [..., 4, 9] of the colours.
        """
        characters, places, objects, colours = self.linear(self.norm(cells.float())).split(_CELL_SIZES, dim=-1)
        return (
            characters.unflatten(-1, (4 * SLOTS, CHARACTER_CLASSES)),
            places.unflatten(-1, (2, CELLS)),
            objects.unflatten(-1, (4, OBJECT_CLASSES)),
            colours.unflatten(-1, (4, COLOUR_CLASSES)),
        )


class Learner(nn.Module):
    """The network and the two training aids that read its features."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        self.nano = Nano(dims)
        self.reader = Reader(dims.clip.hidden_size)
        self.cell_reader = CellReader(dims.decoder.hidden_size)


_CELL_SIZES = [4 * SLOTS * CHARACTER_CLASSES, 2 * CELLS, 4 * OBJECT_CLASSES, 4 * COLOUR_CLASSES]

Rotation = tuple[Tensor, Tensor]
Watch = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(slots=True)
class Guides:
    """Where attention should look, while copying and comparing are learned: heads that are told, and what it cost them.

    `targets` has for some (layer, head) a [B, L, L]: true where a row, a query, should find a column, a key. A row
    without any is free.
    """

    targets: Mapping[tuple[int, int], Tensor]
    loss: Tensor

    def watch(self, layer: int, queries: Tensor, keys: Tensor, mask: Tensor) -> None:
        """Add the cross-entropy between a layer's attention and the wanted places, for each head that is told."""
        for (told, head), target in self.targets.items():
            if told != layer:
                continue
            rows = target.any(dim=-1)
            scores = queries[:, head] @ keys[:, head].transpose(1, 2) / math.sqrt(queries.shape[-1])
            allowed = scores.masked_fill(~mask, -1e9)[rows].float()
            hits = allowed.masked_fill(~target[rows], -1e9)
            self.loss = self.loss + (allowed.logsumexp(-1) - hits.logsumexp(-1)).mean()


def rotary(positions: Tensor, decoder: DecoderDims) -> Rotation:
    """Cosines and sines [B, 1, L, head size]."""
    size = decoder.head_size
    exponents = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    angles = positions[:, None, :, None].float() * decoder.rope_theta**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding in the half-split layout."""
    cos, sin = (part.to(states.dtype) for part in rotation)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W], as CLIP wants it."""
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _heads(states: Tensor, heads: int) -> Tensor:
    return states.reshape(*states.shape[:-1], heads, -1).transpose(1, 2)


def _plain(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    with torch.no_grad():
        linear.weight.mul_(gain)
    return linear
