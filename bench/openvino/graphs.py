"""The four graphs of an OpenVINO GenAI folder, converted from the modules of the PyTorch reference.

Names, shapes and the division into graphs are what OpenVINO GenAI's Phi-3-vision pipeline expects. The pipeline merges
the patches and inserts the separators itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from ...export.dims import DecoderDims, ModelDims
from ...hd import CROP
from ..reference import ReferenceModel
from .subject import import_openvino


def list_graphs(model: ReferenceModel, dims: ModelDims) -> dict[str, Callable[[], Any]]:
    """Map each name that the pipeline looks for to a function that makes the graph: only one is in memory at a time."""
    merged, hidden = 4 * dims.clip.hidden_size, dims.decoder.hidden_size
    pixels, rows, ids = torch.zeros(2, 3, CROP, CROP), torch.zeros(1, 5, merged), torch.zeros(1, 4, dtype=torch.int64)
    clip, projection, embedding = _Clip(model.vision), model.vision.img_projection, model.decoder.model.embed_tokens
    crops, row_shape, features = (-1, 3, CROP, CROP), (1, -1, merged), ("last_hidden_state",)
    return {
        "vision_embeddings": lambda: _convert(clip, [pixels], {"pixel_values": crops}, features),
        "vision_projection": lambda: _convert(projection, [rows], {"input": row_shape}, features),
        "text_embeddings": lambda: _convert(embedding, [ids], {"input": (-1, -1)}, ("inputs_embeds",)),
        LANGUAGE: lambda: _make_stateful_decoder(model.decoder, dims.decoder, hidden),
    }


LANGUAGE = "language"
"""The decoder's name among the graphs."""


def _convert(
    module: nn.Module, example: Sequence[Any], inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> Any:
    """Trace a module on `example` into an OpenVINO graph with these input names and shapes (-1: any) and outputs."""
    openvino, _ = import_openvino()
    graph = openvino.convert_model(module, example_input=tuple(example))
    for port, name in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(
            name
        )  # OpenVINO finds inputs by this name when it switches to paged attention
    graph.reshape({name: openvino.PartialShape(list(shape)) for name, shape in inputs.items()})
    return graph


class _Clip(nn.Module):
    """Crops [N, 3, 336, 336] -> patch features for the projector [N, 576, 1024]."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.clip = vision.img_processor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return features


class _Decoder(nn.Module):
    """The decoder with its cache as plain tensors: the keys and the values of each layer, layer by layer."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        layers = [_fill_layer(*pair) for pair in zip(past[::2], past[1::2], strict=True)]
        at = torch.arange(mask.shape[1])
        causal = at[None, :] <= at[mask.shape[1] - embeds.shape[1] :, None]
        out = self.decoder(
            inputs_embeds=embeds,
            attention_mask=causal[None, None] & mask[:, None, None, :].bool(),
            position_ids=positions,
            past_key_values=Cache(layers=[*layers]),
            use_cache=True,
        )
        states: list[Any] = [state for layer in layers for state in (layer.keys, layer.values)]
        return out.logits, *states


def _fill_layer(keys: torch.Tensor, values: torch.Tensor) -> Any:
    layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


class _LongRope(nn.Module):
    """LongRoPE without in-place writes, which cannot be converted. The last position selects the factors as usual.

    Keys cached before the switch keep the short factors, as in every implementation outside this project.
    """

    def __init__(self, dims: DecoderDims, scaling: float) -> None:
        super().__init__()
        assert dims.long_rope is not None
        base = dims.rope_theta ** (torch.arange(0, dims.head_size, 2, dtype=torch.float32) / dims.head_size)
        self.short, self.long = (
            1 / (torch.tensor(factor) * base) for factor in (dims.long_rope.short_factor, dims.long_rope.long_factor)
        )
        self.switch, self.scaling = dims.long_rope.original, scaling

    def forward(self, states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = torch.where(position_ids.max() + 1 > self.switch, self.long, self.short)
        angles = position_ids[..., None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * self.scaling, angles.sin() * self.scaling


def _make_stateful_decoder(decoder: Any, dims: DecoderDims, hidden: int) -> Any:
    """Make the decoder with its cache inside the graph. The pipeline needs `beam_idx` to reorder the cache."""
    rope = decoder.model.rotary_emb
    if dims.long_rope is not None:
        decoder.model.rotary_emb = _LongRope(dims, rope.attention_scaling)
    state = (-1, dims.num_key_value_heads, -1, dims.head_size)
    names = [f"{kind}.{layer}" for layer in range(dims.num_hidden_layers) for kind in ("key", "value")]
    past = tuple(torch.zeros(1, dims.num_key_value_heads, 3, dims.head_size) for _ in names)
    example = (torch.zeros(1, 2, hidden), torch.ones(1, 5, dtype=torch.int64), torch.tensor([[3, 4]]), past)
    inputs = {"inputs_embeds": (-1, -1, hidden), "attention_mask": (-1, -1), "position_ids": (-1, -1)}
    inputs |= {f"past.{name}": state for name in names}
    try:
        graph = _convert(_Decoder(decoder), example, inputs, ["logits", *(f"present.{name}" for name in names)])
    finally:
        decoder.model.rotary_emb = rope
    _hide_cache(graph, names)
    return graph


def _hide_cache(graph: Any, names: Sequence[str]) -> None:
    """Turn each pair `past.NAME`, `present.NAME` into a variable that begins empty and is reordered by beam_idx."""
    import openvino.opset13 as ops
    from openvino.passes import MakeStateful

    batch = ops.gather(ops.shape_of(graph.input("inputs_embeds")), ops.constant(np.array([0])), ops.constant(0))
    beams = ops.parameter([-1], np.int32, name="beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([beams])
    for name in names:
        past = graph.input(f"past.{name}")
        users = past.get_target_inputs()
        ordered = ops.gather(past, beams, ops.constant(0))
        for user in users:
            user.replace_source_output(ordered.output(0))
    MakeStateful({f"past.{name}": f"present.{name}" for name in names}).run_on_model(graph)
    for state in (node for node in graph.get_ops() if node.get_type_name() == "ReadValue"):
        heads, width = (state.get_output_partial_shape(0)[axis].get_length() for axis in (1, 3))
        shape = ops.concat([batch, ops.constant(np.array([heads, 0, width]))], axis=0)
        state.set_arguments([ops.broadcast(ops.constant(np.float32(0)), shape)])
    graph.validate_nodes_and_infer_types()
