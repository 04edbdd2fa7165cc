"""A small way to write an ONNX graph node by node, its weights streamed to an external data file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .matrix import Matrix
from .quantize import BlockQuantization
from .row_products import RowProducts
from .weight_file import WeightFile

OPSET, IR_VERSION = 20, 10
MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own fused operators."""


class GraphWriter:
    """Collects nodes and writes `PATH` and `PATH.data`.

    `dtype` is the type the graph computes in: float32 or float16.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.float = ir.DataType.from_numpy(self.dtype)
        self._graph = ir.Graph((), (), nodes=(), opset_imports={"": OPSET, MICROSOFT: 1}, name=path.stem)
        self._file = WeightFile(path.with_name(path.name + ".data"))
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._nodes = 0
        self._rows: RowProducts[ir.Value] = RowProducts(self)

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.__exit__()
        if kind is None:
            ir.save(ir.Model(self._graph, ir_version=IR_VERSION, producer_name="phi3v"), self.path)

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare a graph input; a string is a free dimension."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Make a value a graph output."""
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self._graph.outputs.append(value)

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Add a node with one output."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: ir.Value | None, outputs: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs."""
        self._nodes += 1
        name = f"{kind}_{self._nodes}"
        results = [ir.Value(name=f"{name}.{i}") for i in range(outputs)]
        node = ir.node(kind, list(inputs), attributes, domain=domain, outputs=results, name=name)
        self._graph.append(node)
        return results

    def ints(self, *values: int) -> ir.Value:
        """A constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: int) -> ir.Value:
        """A constant int64 scalar."""
        return self.constant(np.array(value, dtype=np.int64))

    def weight(self, name: str, values: npt.NDArray[Any]) -> ir.Value:
        """A weight in the graph's own type."""
        return self.stored(name, values.astype(self.dtype))

    def stored(self, name: str, values: npt.NDArray[Any]) -> ir.Value:
        """A weight in the type it comes in."""
        return self._register(self._file.add(name, values))

    def linear(
        self,
        x: ir.Value,
        name: str,
        matrix: Matrix,
        bias: npt.NDArray[Any],
        quantization: BlockQuantization | None,
        outliers: tuple[int, ...] | None = None,
    ) -> ir.Value:
        """`x @ matrix.T + bias` for x [rows, columns]: Gemm, or MatMulNBits when quantised.

        With `outliers`, which may be none, it is a product in row-wise int8, and those columns are multiplied apart.
        """
        bias_value = self.weight(f"{name}.bias", bias)
        if outliers is not None:
            return self.op("Add", self._rows.write(x, name, matrix, outliers), bias_value)
        if quantization is None:
            weight = self.weight(f"{name}.weight", np.concatenate(list(matrix.chunks())))
            return self.op("Gemm", x, weight, bias_value, transB=1)
        packed, scales = self._file.add_quantized(name, matrix, quantization, self.dtype)
        return self.op(
            "MatMulNBits",
            *(x, self._register(packed), self._register(scales), None, None, bias_value),
            domain=MICROSOFT,
            K=matrix.columns,
            N=matrix.rows,
            bits=quantization.bits,
            block_size=quantization.block_size,
            accuracy_level=quantization.accuracy_level,
        )

    def constant(self, values: npt.NDArray[Any] | np.generic) -> ir.Value:
        """A small constant; the same for equal values."""
        values = np.asarray(values)
        key = (values.dtype, values.shape, *values.reshape(-1).tolist())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = self._register(ir.Tensor(values, name=name))
        return self._constants[key]

    def _register(self, tensor: ir.Tensor[Any] | ir.ExternalTensor) -> ir.Value:
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value
