"""Replaces the `MatMulNBits` nodes of a graph by products in row-wise int8 of the same matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from .block_matrix import BlockMatrix
from .row_products import RowProducts
from .weight_file import WeightFile

MATMUL = "MatMulNBits"
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMax and ReduceMin take their axes as an input."""


def replace_blocks(
    model: onnx.ModelProto,
    matrices: Mapping[str, BlockMatrix],
    outliers: Mapping[str, tuple[int, ...]],
    file: WeightFile,
) -> onnx.ModelProto:
    """A copy of the model in which the nodes named in `outliers` multiply in rows; those columns stay in float32.

    New weights go to `file`. Inputs of the nodes may have any number of axes, the last being the matrix's columns.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    writer = _Writer(copy, file)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        if node.name in outliers:
            writer.write_product(node, matrices[node.name], outliers[node.name])
        else:
            copy.graph.node.append(node)
    return copy


class _Writer:
    """Appends nodes to a graph; a value is its name. See `row_products.Nodes`."""

    def __init__(self, model: onnx.ModelProto, file: WeightFile) -> None:
        self._graph, self._file = model.graph, file
        self._opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self._count = 0
        self._constants: dict[tuple[Any, ...], str] = {}
        self._rows: RowProducts[str] = RowProducts(self)
        self._flat: dict[str, tuple[str, str]] = {}

    def write_product(self, node: onnx.NodeProto, matrix: BlockMatrix, outliers: tuple[int, ...]) -> None:
        """Write what stands for a node, under the name of its output."""
        x, output = node.input[0], node.output[0]
        bias = node.input[5] if len(node.input) > 5 else ""
        if x not in self._flat:
            shape = self.op("Shape", x)
            ends = self.op("Slice", shape, self.constant(np.array([0])), self.constant(np.array([-1])))
            self._flat[x] = self.op("Reshape", x, self.constant(np.array([-1, matrix.columns]))), ends
        flat, ends = self._flat[x]
        product = self._rows.write(flat, node.name.strip("/").replace("/", "."), matrix, outliers)
        if bias:
            product = self.op("Add", product, bias)
        shape = self.op("Concat", ends, self.constant(np.array([matrix.rows])), axis=0)
        self._graph.node.append(helper.make_node("Reshape", [product, shape], [output], name=node.name))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        self._count += 1
        output = f"/rows/{kind}_{self._count}"
        names = list(inputs)
        if kind in ("ReduceMax", "ReduceMin") and self._opset < _AXES_ARE_INPUTS:
            names, attributes = names[:1], attributes | {"axes": [-1]}
        self._graph.node.append(helper.make_node(kind, names, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, values: npt.NDArray[Any] | np.generic) -> str:
        """A small constant; the same for equal values."""
        array = np.asarray(values)
        key = (array.dtype.str, array.shape, *array.reshape(-1).tolist())
        if key not in self._constants:
            self._constants[key] = f"/rows/constant_{len(self._constants)}"
            self._graph.initializer.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def stored(self, name: str, values: npt.NDArray[Any]) -> str:
        """A weight in the type it comes in."""
        self._graph.initializer.append(ir.to_proto(self._file.add(name, values)))
        return name


def find_matrices(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The products with a matrix in blocks, in the graph itself: those in branches and loops are not looked at."""
    return [node for node in model.graph.node if node.op_type == MATMUL]
