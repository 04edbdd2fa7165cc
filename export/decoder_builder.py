"""genai's own model builder, fed from the checkpoint matrix by matrix.

The builder's graph code is kept (fused attention, LongRoPE caches, layer norms). What is replaced is how weights reach
the file: the builder loads a whole PyTorch model and holds every layer until it saves; here each matrix is read,
quantised and written the moment its node is made, so memory does not grow with the number of layers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..machine.telemetry import switch_off_genais_telemetry
from .checkpoint import Checkpoint
from .decoder_modules import Linear, Module, Modules
from .dims import DecoderDims
from .matrix import Matrix
from .quantize import BlockQuantization
from .row_products import RowProducts
from .weight_file import WeightFile

LAST_POSITIONS = "/model/last"
"""Begins the names of the nodes that take each row's last real position; GatherElements' first input has them all."""


@dataclass(frozen=True, slots=True)
class Products:
    """How matrices are multiplied: in blocks, in float where `blocks` is None, or in row-wise int8.

    `head` is for the matrix before the logits. `rows` has the outlier columns of those in int8, by the name of the
    checkpoint's tensor.
    """

    blocks: BlockQuantization | None
    head: BlockQuantization | None
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightStore:
    """Weights on their way from a checkpoint to files. One of a name that is there is not written again.

    `rows` is the file of the weights in row-wise int8.
    """

    checkpoint: Checkpoint
    file: WeightFile
    rows: WeightFile
    kept: dict[str, tuple[ir.ExternalTensor, ...]] = field(default_factory=dict)

    def add(self, name: str, values: npt.NDArray[Any]) -> ir.ExternalTensor:
        """Store one tensor."""
        if name not in self.kept:
            self.kept[name] = (self.file.add(name, values),)
        return self.kept[name][0]

    def add_rows(self, name: str, values: npt.NDArray[Any]) -> ir.ExternalTensor:
        """Store one tensor of a row-wise product."""
        if name not in self.kept:
            self.kept[name] = (self.rows.add(name, values),)
        return self.kept[name][0]

    def add_blocks(
        self, name: str, matrix: Matrix, blocks: BlockQuantization, dtype: npt.DTypeLike
    ) -> tuple[ir.ExternalTensor, ...]:
        """Store a matrix in blocks: its packed bytes and its scales."""
        if name not in self.kept:
            self.kept[name] = self.file.add_quantized(name, matrix, blocks, dtype)
        return self.kept[name]


class BuilderNodes:
    """The builder as a writer of nodes on values of its own, which are names."""

    def __init__(self, builder: Any) -> None:
        self._builder, self._count = builder, 0

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        self._count += 1
        name = f"/rows/{kind}_{self._count}"
        self._builder.make_node(kind, list(inputs), [f"{name}/output_0"], name=name, domain=domain, **attributes)
        return f"{name}/output_0"

    def constant(self, values: npt.NDArray[Any] | np.generic) -> str:
        """A small constant; the same for equal values."""
        array = np.asarray(values)
        name = f"/rows/constants/{array.dtype}/{array.tolist()}"
        if name not in self._builder.model.graph.initializers:
            self._builder.register_weight(ir.Tensor(array, name=name))
        return name

    def stored(self, name: str, values: npt.NDArray[Any]) -> str:
        """A weight in the type it comes in."""
        return str(self._builder.register_weight(self._builder.store.add_rows(name, values)))


class StreamedWeights:
    """Overrides of the builder's model class: where weights come from and where they go."""

    def __init__(self, store: WeightStore, products: Products, *builder_arguments: Any) -> None:
        self.store, self.products = store, products
        self.nodes = BuilderNodes(self)
        self.rows: RowProducts[str] = RowProducts(self.nodes)
        self.flat: dict[str, tuple[str, str]] = {}
        """Inputs of row-wise products as rows, and the sizes of their other dimensions."""
        super().__init__(*builder_arguments)  # makes the first nodes

    def is_gqa_supported(self) -> bool:
        """GroupQueryAttention everywhere: the builder does not know that the CPU provider has it in float16 too."""
        return True

    def load_weights(self, _: str) -> Modules:
        """Hand over what stands in for the model."""
        return Modules(self.store.checkpoint)

    def make_initializer(self: Any, tensor: Any, /, name: str, *, to: ir.DataType | None = None) -> None:
        """Store a tensor at once."""
        values = tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
        self.register_weight(self.store.add(name, values if to is None else values.astype(to.numpy())))

    def make_node(self: Any, op_type: str, inputs: Any, outputs: Any, *, name: str, **attributes: Any) -> None:
        """Add a node, but for LongRoPE's `If` on a GPU."""
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
            both = self.register_weight(self.store.add(f"{name}_both", np.concatenate(parts)))
            self.make_node("Slice", [both, *bounds, f"{integers}/[0]"], [name], name=f"{basename}/{name}")

    def make_attention_output_proj(self: Any, layer_id: int, attention: Module, root_input: str, **where: Any) -> None:
        """Go on with each row's last real position only, once the last layer has attended to all of them.

        Nobody reads the logits of a prompt's other positions.
        """
        if layer_id == self.num_layers - 1:
            indices = self.make_last_indices(self.attention_attrs["o_path"])
            for attributes, name in ((self.attention_attrs, "o_path"), (self.layernorm_attrs, "root_input")):
                attributes[name] = self.make_last_position(attributes[name], indices, f"{LAST_POSITIONS}/{name}")
        super().make_attention_output_proj(layer_id, attention, root_input, **where)  # type: ignore[misc]

    def make_last_position(self: Any, hidden: str, indices: str, name: str) -> str:
        """[batch, positions, hidden] -> [batch, 1, hidden]. On CUDA, GatherND would copy from the host."""
        shape = ["batch_size", 1, self.hidden_size]
        self.make_gather_elements(name, [hidden, indices], self.io_dtype, shape=shape, axis=1)
        return f"{name}/output_0"

    def make_last_indices(self: Any, hidden: str) -> str:
        """Number each row's last real position of [batch, positions, hidden], for GatherElements.

        Padding is on the right and only where nothing is behind these positions. So a row's real ones are as many as
        there are ones in that many first columns of the mask; a CUDA graph's mask is as wide as the KV buffer.
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
        self.make_expand(f"{name}/indices", wide, kind, shape=["batch_size", 1, self.hidden_size])
        return f"{name}/indices/output_0"

    def register_weight(self: Any, tensor: ir.Tensor[Any] | ir.ExternalTensor) -> str:
        """Make a tensor an initializer of the graph; returns its name."""
        value = self.make_value(tensor.name, tensor.dtype, tensor.shape)
        value.const_value = tensor
        self.model.graph.register_initializer(value)
        return str(value.name)

    def make_packed_matmul(self: Any, q: Linear, k: Linear, v: Linear, basename: str, root_input: str) -> str:
        """Multiply by the three projections of attention at once."""
        parts = q.matrix.parts + k.matrix.parts + v.matrix.parts
        return str(self.make_matmul_op(Linear(Matrix(self.store.checkpoint, parts)), basename, root_input))

    def make_matmul_op(self: Any, linear: Linear, basename: str, root_input: str, **where: Any) -> str:
        """Write a product; returns the name that its output's begins with."""
        products, tensor = self.products, linear.matrix.parts[0][0]
        blocks = products.head if where.get("logits") else products.blocks
        in_rows = tensor in products.rows
        name = f"{basename}Int8" if in_rows else basename if blocks is None else f"{basename}NBits"
        output = "logits" if where.get("logits") else f"{name}/output_0"
        weights = name[1:].replace("/", ".")
        if in_rows:
            self.make_row_product(linear.matrix, root_input, output, weights, products.rows[tensor])
        elif blocks is None:
            values = linear.matrix.transposed(self.io_dtype.numpy())
            inputs = [root_input, self.register_weight(self.store.add(f"{weights}.weight", values))]
            self.make_node("MatMul", inputs=inputs, outputs=[output], name=name)
        else:
            stored = self.store.add_blocks(weights, linear.matrix, blocks, self.io_dtype.numpy())
            self.make_node(
                "MatMulNBits",
                inputs=[root_input, *(self.register_weight(tensor) for tensor in stored)],
                outputs=[output],
                name=name,
                domain="com.microsoft",
                K=linear.matrix.columns,
                N=linear.matrix.rows,
                bits=blocks.bits,
                block_size=blocks.block_size,
                accuracy_level=blocks.accuracy_level,
            )
        sequence = where.get("seq_dim", "sequence_length")
        shape = self.make_hidden_state_shape(seq_dim=sequence, last_dim=linear.matrix.rows)
        self.make_value(output, self.io_dtype, shape=shape)
        return name

    def make_row_product(
        self: Any, matrix: Matrix, root_input: str, output: str, weights: str, outliers: tuple[int, ...]
    ) -> None:
        """Multiply [batch, positions, columns] as rows."""
        nodes = self.nodes
        if root_input not in self.flat:
            flat = nodes.op("Reshape", root_input, nodes.constant(np.array([-1, matrix.columns])))
            self.flat[root_input] = flat, nodes.op("Shape", root_input, start=0, end=2)
        flat, ends = self.flat[root_input]
        product = self.rows.write(flat, weights, matrix, outliers)
        shape = nodes.op("Concat", ends, nodes.constant(np.array([matrix.rows])), axis=0)
        self.make_node("Reshape", [product, shape], [output], name=f"/{weights}/Reshape")


@cache
def streaming_builder(long_rope: bool) -> type[Any]:
    """The builder's class for a Phi-3 decoder, with weights streamed."""
    builder = import_builder()
    base = builder.Phi3MiniLongRoPEModel if long_rope else builder.Phi3MiniModel
    return type("StreamingPhi3", (StreamedWeights, base), {})


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


def builder_config(dims: DecoderDims, path: str) -> SimpleNamespace:
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
