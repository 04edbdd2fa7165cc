"""The dimensions of a Phi-3-vision checkpoint, read from its config.json, and the tensors they imply.

Knows every tensor name and shape of the original checkpoint; opens no weights. Source: the model's published
config.json and modelling code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import CheckpointError
from ..hd import CROP

Shape = tuple[int, ...]

PATCHES = 24
"""Patches along a crop's side, merged 2 x 2 into 12 x 12 tokens."""

VISION = "model.vision_embed_tokens."
CLIP = VISION + "img_processor.vision_model."
EMBED = "model.embed_tokens.weight"
EMBED_ALIAS = VISION + "wte.weight"
LM_HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"


@dataclass(frozen=True, slots=True)
class ClipDims:
    """The CLIP vision tower; the defaults are ViT-L/14-336."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = CROP
    patch_size: int = 14

    @property
    def used_layers(self) -> int:
        """Layers that run: the features are the hidden states of layer -2, so the last layer never does."""
        return self.num_hidden_layers - 1


@dataclass(frozen=True, slots=True)
class LongRope:
    """LongRoPE: `short_factor` up to `original` tokens in all, `long_factor` beyond; one value a rotary frequency."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original: int
    attention_factor: float | None = None


@dataclass(frozen=True, slots=True)
class DecoderDims:
    """The Phi-3 decoder; the defaults are Phi-3-mini."""

    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    vocab_size: int = 32064
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    long_rope: LongRope | None = None
    tie_word_embeddings: bool = False

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_size(self) -> int:
        """Width of the keys (and of the values) of one layer."""
        return self.num_key_value_heads * self.head_size

    @property
    def qkv_size(self) -> int:
        """Rows of the fused `qkv_proj`."""
        return self.hidden_size + 2 * self.kv_size


@dataclass(frozen=True, slots=True)
class ModelDims:
    """Everything config.json says that an export needs."""

    clip: ClipDims = field(default_factory=ClipDims)
    decoder: DecoderDims = field(default_factory=DecoderDims)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelDims:
        """Read the dimensions out of a parsed config.json; raises CheckpointError naming the key that is wrong."""
        try:
            dims = cls(_clip_dims(config.get("img_processor") or {}), _decoder_dims(config))
            _check_sizes(dims)
            _check(dims, config)
        except CheckpointError:
            raise
        except KeyError as exc:
            raise CheckpointError(f"config.json lacks {exc}: take the config.json that came with the weights") from exc
        except (TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise CheckpointError(f"config.json holds a value of the wrong kind ({exc})") from exc
        return dims


def _clip_dims(img_processor: Mapping[str, Any]) -> ClipDims:
    default = ClipDims()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    return ClipDims(**{name: int(img_processor.get(name, getattr(default, name))) for name in names})


def _decoder_dims(config: Mapping[str, Any]) -> DecoderDims:
    rope = config.get("rope_parameters") or {}
    return DecoderDims(
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=int(config["num_attention_heads"]),
        num_key_value_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
        vocab_size=int(config["vocab_size"]),
        max_position_embeddings=int(config["max_position_embeddings"]),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        long_rope=_long_rope(config),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _long_rope(config: Mapping[str, Any]) -> LongRope | None:
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if scaling is None:
        return None
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind in (None, "default"):
        return None
    if kind not in ("su", "longrope"):
        raise CheckpointError(f'config.json has rope_scaling of type "{kind}"; "su", "longrope" or null are supported')
    original = config.get("original_max_position_embeddings") or scaling["original_max_position_embeddings"]
    factor = scaling.get("attention_factor")
    return LongRope(
        short_factor=tuple(float(f) for f in scaling["short_factor"]),
        long_factor=tuple(float(f) for f in scaling["long_factor"]),
        original=int(original),
        attention_factor=None if factor is None else float(factor),
    )


def _check_sizes(dims: ModelDims) -> None:
    """Every whole number in the dimensions counts something that must be there."""
    for part in (dims.clip, dims.decoder):
        for key in fields(part):
            value = getattr(part, key.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise CheckpointError(f"config.json has {key.name} {value}; allowed: 1 or more")


def _check(dims: ModelDims, config: Mapping[str, Any]) -> None:
    """Refuse what this exporter would silently get wrong."""
    clip, decoder = dims.clip, dims.decoder
    img_processor = config.get("img_processor") or {}
    window = config.get("sliding_window")
    rotary = decoder.head_size // 2
    rope = decoder.long_rope
    rules = (
        (clip.image_size == CROP, f"img_processor.image_size {clip.image_size}", str(CROP)),
        (clip.patch_size * PATCHES == CROP, f"img_processor.patch_size {clip.patch_size}", str(CROP // PATCHES)),
        (clip.num_hidden_layers >= 2, f"img_processor.num_hidden_layers {clip.num_hidden_layers}", "2 or more"),
        (_divides(clip.num_attention_heads, clip.hidden_size), "img_processor.num_attention_heads", "a divisor"),
        (img_processor.get("layer_idx", -2) == -2, f"img_processor.layer_idx {img_processor.get('layer_idx')}", "-2"),
        (_divides(decoder.num_attention_heads, decoder.hidden_size), "num_attention_heads", "a divisor of hidden_size"),
        (_divides(decoder.num_key_value_heads, decoder.num_attention_heads), "num_key_value_heads", "a divisor"),
        (decoder.head_size % 2 == 0, f"head size {decoder.head_size}", "an even number"),
        (config.get("hidden_act", "silu") == "silu", f"hidden_act {config.get('hidden_act')}", "silu"),
        (float(config.get("partial_rotary_factor") or 1) == 1, "partial_rotary_factor", "1"),
        (window is None or int(window) >= decoder.max_position_embeddings, f"sliding_window {window}", "no window"),
        (rope is None or len(rope.short_factor) == rotary, "the length of rope_scaling.short_factor", str(rotary)),
        (rope is None or len(rope.long_factor) == rotary, "the length of rope_scaling.long_factor", str(rotary)),
    )
    for ok, given, allowed in rules:
        if not ok:
            raise CheckpointError(f"config.json: {given} is not supported, only {allowed}; this is no Phi-3-vision")


def _divides(divisor: int, number: int) -> bool:
    return divisor > 0 and number % divisor == 0


def layer_prefix(layer: int) -> str:
    """Name prefix of one decoder layer's tensors."""
    return f"model.layers.{layer}."


def clip_layer_prefix(layer: int) -> str:
    """Name prefix of one CLIP layer's tensors."""
    return f"{CLIP}encoder.layers.{layer}."


def tensor_shapes(dims: ModelDims) -> dict[str, Shape]:
    """Name -> shape of every tensor an export reads, in the order it reads them: vision, embedding, decoder."""
    return {**vision_shapes(dims), EMBED: (dims.decoder.vocab_size, dims.decoder.hidden_size), **_decoder_shapes(dims)}


def vision_shapes(dims: ModelDims) -> dict[str, Shape]:
    """Tensors of the CLIP layers that run, the separators and the projector."""
    clip, hidden = dims.clip, dims.decoder.hidden_size
    width, merged = clip.hidden_size, 4 * clip.hidden_size
    shapes: dict[str, Shape] = {
        f"{CLIP}embeddings.class_embedding": (width,),
        f"{CLIP}embeddings.patch_embedding.weight": (width, 3, clip.patch_size, clip.patch_size),
        f"{CLIP}embeddings.position_embedding.weight": (PATCHES * PATCHES + 1, width),
        f"{CLIP}pre_layrnorm.weight": (width,),
        f"{CLIP}pre_layrnorm.bias": (width,),
    }
    for layer in range(clip.used_layers):
        shapes.update(_clip_layer_shapes(clip, clip_layer_prefix(layer)))
    return shapes | {
        f"{VISION}sub_GN": (1, 1, 1, merged),
        f"{VISION}glb_GN": (1, 1, merged),
        f"{VISION}img_projection.0.weight": (hidden, merged),
        f"{VISION}img_projection.0.bias": (hidden,),
        f"{VISION}img_projection.2.weight": (hidden, hidden),
        f"{VISION}img_projection.2.bias": (hidden,),
    }


def _clip_layer_shapes(clip: ClipDims, prefix: str) -> dict[str, Shape]:
    width, inner = clip.hidden_size, clip.intermediate_size
    matrices = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")}
    matrices |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    shapes: dict[str, Shape] = {}
    for norm in ("layer_norm1", "layer_norm2"):
        shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
    for name, (rows, columns) in matrices.items():
        shapes |= {f"{prefix}{name}.weight": (rows, columns), f"{prefix}{name}.bias": (rows,)}
    return shapes


def _decoder_shapes(dims: ModelDims) -> dict[str, Shape]:
    decoder = dims.decoder
    hidden, inner = decoder.hidden_size, decoder.intermediate_size
    shapes: dict[str, Shape] = {}
    for layer in range(decoder.num_hidden_layers):
        prefix = layer_prefix(layer)
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}self_attn.qkv_proj.weight": (decoder.qkv_size, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}mlp.gate_up_proj.weight": (2 * inner, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
        }
    shapes[FINAL_NORM] = (hidden,)
    if not decoder.tie_word_embeddings:
        shapes[LM_HEAD] = (decoder.vocab_size, hidden)
    return shapes
