"""The decoder graph, made by onnxruntime-genai's own model builder but fed from the checkpoint matrix by matrix.

    inputs_embeds, attention_mask, past_key_values.%d.key/value -> logits, present.%d.key/value

The builder's graph code is kept (fused attention, LongRoPE caches, layer norms). What is replaced is how weights reach
the file: the builder loads a whole PyTorch model and holds every layer until it saves; here each matrix is read,
quantised and written the moment its node is made, so memory does not grow with the number of layers.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..machine.telemetry import switch_off_genais_telemetry
from .checkpoint import Checkpoint
from .dims import FINAL_NORM, LM_HEAD, DecoderDims, layer_prefix
from .matrix import Matrix
from .quantize import BlockQuantization
from .weight_file import WeightFile

_log = logging.getLogger("phi3v")

LAST_POSITIONS = "/lm_head/last"
"""The node that takes each row's last real position; its first input holds all of them."""


def write_decoder(
    checkpoint: Checkpoint,
    path: Path,
    *,
    device: str,
    dtype: npt.DTypeLike,
    quantization: BlockQuantization | None = None,
    head: BlockQuantization | None = None,
) -> None:
    """Write the graph and its data file; `dtype` is float32 or float16, `quantization` None keeps weights in it.

    `head` quantises the matrix before the logits otherwise than the rest.
    """
    io_type = ir.DataType.from_numpy(np.dtype(dtype))
    weight_type = io_type if quantization is None else ir.DataType.INT4
    with WeightFile(path.with_name(path.name + ".data")) as file, _builder_prints_to_log():
        options = {"exclude_embeds": True, "filename": path.name}
        config = _builder_config(checkpoint.dims.decoder, str(checkpoint.path))
        builder = _streaming_builder(checkpoint.dims.decoder.long_rope is not None)
        weights = (checkpoint, file, quantization, head or quantization)
        model = builder(*weights, config, io_type, weight_type, device, "", options)
        model.make_model("")
        model.model.graph.sort()
        ir.save(model.model, path)


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """What stands in for a torch Linear: the builder looks at `bias` and at the equality of the three projections."""

    matrix: Matrix
    bias: None = None


class _Module:
    """A named group of parts, equal only to itself: the builder finds its place by comparing modules."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class _DecoderLayer(_Module):
    """One layer in the builder's names; it knows layers by the end of this class's name."""


class _Modules:
    """What stands in for the PyTorch model: hands the builder one module after the other."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._dims = checkpoint, checkpoint.dims.decoder
        self.embedding = _Module(weight=None)
        self.final_norm = self._norm(FINAL_NORM)
        self.model = _Module(norm=self.final_norm)
        self.lm_head = _Linear(Matrix.whole(checkpoint, LM_HEAD))

    def modules(self) -> Iterator[Any]:
        """Embedding (excluded from the graph), layers, final norm, head."""
        yield self.embedding
        for layer in range(self._dims.num_hidden_layers):
            yield self._layer(layer_prefix(layer))
        yield self.final_norm
        yield self.lm_head

    def _layer(self, prefix: str) -> _DecoderLayer:
        hidden, kv, inner = self._dims.hidden_size, self._dims.kv_size, self._dims.intermediate_size
        qkv, gate_up = f"{prefix}self_attn.qkv_proj.weight", f"{prefix}mlp.gate_up_proj.weight"
        return _DecoderLayer(
            self_attn=_Module(
                q_proj=self._rows(qkv, 0, hidden),
                k_proj=self._rows(qkv, hidden, hidden + kv),
                v_proj=self._rows(qkv, hidden + kv, hidden + 2 * kv),
                o_proj=_Linear(Matrix.whole(self._checkpoint, f"{prefix}self_attn.o_proj.weight")),
            ),
            mlp=_Module(
                gate_proj=self._rows(gate_up, 0, inner),
                up_proj=self._rows(gate_up, inner, 2 * inner),
                down_proj=_Linear(Matrix.whole(self._checkpoint, f"{prefix}mlp.down_proj.weight")),
            ),
            input_layernorm=self._norm(f"{prefix}input_layernorm.weight"),
            post_attention_layernorm=self._norm(f"{prefix}post_attention_layernorm.weight"),
        )

    def _rows(self, name: str, first: int, last: int) -> _Linear:
        return _Linear(Matrix.slice(self._checkpoint, name, first, last))

    def _norm(self, name: str) -> _Module:
        return _Module(weight=self._checkpoint.float32(name))


class _StreamedWeights:
    """Overrides of the builder's model class: where weights come from and where they go."""

    def __init__(
        self,
        source: Checkpoint,
        file: WeightFile,
        quantization: BlockQuantization | None,
        head: BlockQuantization | None,
        *builder_arguments: Any,
    ) -> None:
        self.source, self.file, self.quantization, self.head = source, file, quantization, head
        super().__init__(*builder_arguments)  # makes the first nodes

    def is_gqa_supported(self) -> bool:
        """GroupQueryAttention everywhere: the builder does not know that the CPU provider has it in float16 too."""
        return True

    def load_weights(self, _: str) -> _Modules:
        return _Modules(self.source)

    def make_initializer(self: Any, tensor: Any, /, name: str, *, to: ir.DataType | None = None) -> None:
        values = tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
        self.register_weight(self.file.add(name, values if to is None else values.astype(to.numpy())))

    def make_node(self: Any, op_type: str, inputs: Any, outputs: Any, *, name: str, **attributes: Any) -> None:
        if op_type == "If" and self.ep != "cpu":
            self.make_rope_slices(inputs[0], outputs, attributes["else_branch"], attributes["then_branch"])
        else:
            super().make_node(op_type, inputs, outputs, name=name, **attributes)  # type: ignore[misc]

    def make_rope_slices(self: Any, past_switch: str, outputs: Sequence[str], short: ir.Graph, long: ir.Graph) -> None:
        """Take LongRoPE's caches as a Slice of one tensor, short rows before long ones, in place of the builder's `If`.

        CUDA graphs refuse control flow, and an `If` copies its constants from the host with every token. The CPU keeps
        the `If`: there it copies nothing, and a Slice would.
        """
        short_caches, long_caches = (list(_constant_outputs(branch)) for branch in (short, long))
        short_rows, long_rows = len(short_caches[0]), len(long_caches[0])
        slice_of_long, slice_of_short = (short_rows, short_rows + long_rows), (0, short_rows)
        basename, integers = "/model/rope_caches", "/model/constants/INT64"
        bounds = []
        for bound, if_long, if_short in zip(("start", "end"), slice_of_long, slice_of_short, strict=True):
            inputs = [past_switch, f"{integers}/[{if_long}]", f"{integers}/[{if_short}]"]
            self.make_where(f"{basename}/{bound}", inputs, ir.DataType.INT64, shape=[1])
            bounds.append(f"{basename}/{bound}/output_0")
        for name, *parts in zip(outputs, short_caches, long_caches, strict=True):
            both = self.register_weight(self.file.add(f"{name}_both", np.concatenate(parts)))
            self.make_node("Slice", [both, *bounds, f"{integers}/[0]"], [name], name=f"{basename}/{name}")

    def make_lm_head(self: Any, lm_head: _Linear) -> None:
        """Compute the logits of each row's last real position only: nobody reads those of a prompt's others."""
        self.layernorm_attrs["output_0"] = self.make_last_positions(self.layernorm_attrs["output_0"])
        self.output_shapes["logits"] = ["batch_size", 1, self.vocab_size]
        super().make_lm_head(lm_head)  # type: ignore[misc]

    def make_last_positions(self: Any, hidden: str) -> str:
        """Take the last real position of [batch, positions, hidden]: [batch, 1, hidden].

        Padding is on the right and only where nothing is behind these positions. So a row's real ones are as many as
        there are ones in that many first columns of the mask; a CUDA graph's mask is as wide as the KV buffer.
        GatherElements, because on CUDA GatherND copies from the host.
        """
        name, integers, kind = LAST_POSITIONS, "/model/constants/INT64", ir.DataType.INT64
        positions = f"{name}/positions"
        self.make_node("Shape", [hidden], [positions], name=positions, start=1, end=2)
        self.make_value(positions, kind, shape=[1])
        mask = [self.input_names["attention_mask"], f"{integers}/[0]", positions, f"{integers}/[1]"]
        self.make_slice(f"{name}/mask", mask, kind, shape=["batch_size", "sequence_length"])
        ones = [f"{name}/mask/output_0", f"{integers}/[1]"]
        self.make_reduce_sum(f"{name}/ones", ones, kind, shape=["batch_size", 1], keepdims=True)
        self.make_sub(f"{name}/number", [f"{name}/ones/output_0", f"{integers}/[1]"], kind, shape=["batch_size", 1])
        index = [f"{name}/number/output_0", f"{integers}/[2]"]
        self.make_unsqueeze(f"{name}/index", index, kind, shape=["batch_size", 1, 1])
        wide = [f"{name}/index/output_0", f"{integers}/[1, 1, {self.hidden_size}]"]
        shape = ["batch_size", 1, self.hidden_size]
        self.make_expand(f"{name}/indices", wide, kind, shape=shape)
        self.make_gather_elements(name, [hidden, f"{name}/indices/output_0"], self.io_dtype, shape=shape, axis=1)
        return f"{name}/output_0"

    def register_weight(self: Any, tensor: ir.ExternalTensor) -> str:
        value = self.make_value(tensor.name, tensor.dtype, tensor.shape)
        value.const_value = tensor
        self.model.graph.register_initializer(value)
        return str(value.name)

    def make_packed_matmul(self: Any, q: _Linear, k: _Linear, v: _Linear, basename: str, root_input: str) -> str:
        parts = q.matrix.parts + k.matrix.parts + v.matrix.parts
        return str(self.make_matmul_op(_Linear(Matrix(self.source, parts)), basename, root_input))

    def make_matmul_op(self: Any, linear: _Linear, basename: str, root_input: str, **where: Any) -> str:
        quantization = self.head if where.get("logits") else self.quantization
        name = basename if quantization is None else f"{basename}NBits"
        output = "logits" if where.get("logits") else f"{name}/output_0"
        weights = name[1:].replace("/", ".")
        if quantization is None:
            values = linear.matrix.transposed(self.io_dtype.numpy())
            inputs = [root_input, self.register_weight(self.file.add(f"{weights}.weight", values))]
            self.make_node("MatMul", inputs=inputs, outputs=[output], name=name)
        else:
            stored = self.file.add_quantized(weights, linear.matrix, quantization, self.io_dtype.numpy())
            self.make_node(
                "MatMulNBits",
                inputs=[root_input, *(self.register_weight(tensor) for tensor in stored)],
                outputs=[output],
                name=name,
                domain="com.microsoft",
                K=linear.matrix.columns,
                N=linear.matrix.rows,
                bits=quantization.bits,
                block_size=quantization.block_size,
                accuracy_level=quantization.accuracy_level,
            )
        sequence = 1 if where.get("logits") else where.get("seq_dim", "sequence_length")
        shape = self.make_hidden_state_shape(seq_dim=sequence, last_dim=linear.matrix.rows)
        self.make_value(output, self.io_dtype, shape=shape)
        return name


@cache
def _streaming_builder(long_rope: bool) -> type[Any]:
    builder = import_builder()
    base = builder.Phi3MiniLongRoPEModel if long_rope else builder.Phi3MiniModel
    return type("StreamingPhi3", (_StreamedWeights, base), {})


def import_builder() -> ModuleType:
    """Import genai's builder, which needs torch and seconds; telemetry stays off, and sys.path as it was."""
    switch_off_genais_telemetry()
    paths = list(sys.path)
    try:
        from onnxruntime_genai.models import builder
    finally:
        sys.path[:] = paths
    module: ModuleType = builder
    return module


def _constant_outputs(branch: ir.Graph) -> Iterator[npt.NDArray[Any]]:
    """The values of a graph's outputs, each the output of a Constant node."""
    for output in branch.outputs:
        node = output.producer()
        assert node is not None
        yield node.attributes["value"].as_tensor().numpy()


def _builder_config(dims: DecoderDims, path: str) -> SimpleNamespace:
    """The attributes of a Hugging Face Phi-3 config that the builder reads."""
    rope = dims.long_rope
    config = SimpleNamespace(
        _name_or_path=path,
        architectures=["Phi3ForCausalLM"],
        hidden_act="silu",
        hidden_size=dims.hidden_size,
        intermediate_size=dims.intermediate_size,
        max_position_embeddings=dims.max_position_embeddings,
        num_attention_heads=dims.num_attention_heads,
        num_hidden_layers=dims.num_hidden_layers,
        num_key_value_heads=dims.num_key_value_heads,
        rms_norm_eps=dims.rms_norm_eps,
        rope_theta=dims.rope_theta,
        sliding_window=-1,
        vocab_size=dims.vocab_size,
        rope_parameters={"rope_type": "default"},
    )
    if rope is not None:
        scale = rope.attention_factor or 0  # 0: the builder computes it from the two context lengths
        config.original_max_position_embeddings = rope.original
        config.rope_parameters = {
            "rope_type": "longrope",
            "type": "longrope",
            "short_factor": list(rope.short_factor),
            "long_factor": list(rope.long_factor),
            "short_mscale": scale,
            "long_mscale": scale,
        }
    return config


class _LogLines:
    """A stdout that hands whole lines to the log."""

    def write(self, text: str) -> int:
        for line in filter(None, text.splitlines()):
            _log.debug("model builder: %s", line)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


@contextlib.contextmanager
def _builder_prints_to_log() -> Iterator[None]:
    """The builder prints; a caller's stdout carries answers only."""
    with contextlib.redirect_stdout(_LogLines()):
        yield
