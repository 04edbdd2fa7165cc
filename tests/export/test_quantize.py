"""Quantised weights are what MatMulNBits computes with."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from phi3v.export.checkpoint import Checkpoint
from phi3v.export.graph import GraphWriter
from phi3v.export.matrix import Matrix
from phi3v.export.quantize import BlockQuantization, dequantize_rows, quantize_rows

pytestmark = pytest.mark.torch

LAYOUTS = [BlockQuantization(bits, block, 0) for bits in (4, 8) for block in (32, 128)]


@pytest.mark.parametrize("quantization", LAYOUTS, ids=str)
@pytest.mark.parametrize("columns", [64, 100, 256])
def test_error_is_below_one_step(quantization: BlockQuantization, columns: int) -> None:
    weight = np.random.default_rng(0).standard_normal((48, columns), dtype=np.float32)
    packed, scales = quantize_rows(weight, quantization)
    assert packed.shape == quantization.packed_shape(48, columns)
    step = np.abs(scales).max()
    assert np.abs(dequantize_rows(packed, scales, quantization, columns) - weight).max() <= 1.01 * step


@pytest.mark.parametrize("quantization", LAYOUTS, ids=str)
def test_graph_computes_with_the_dequantised_weight(tmp_path, checkpoint: Checkpoint, quantization) -> None:  # type: ignore[no-untyped-def]
    name = "model.layers.0.mlp.down_proj.weight"
    matrix, bias = Matrix.whole(checkpoint, name), np.linspace(-1, 1, 64, dtype=np.float32)
    with GraphWriter(tmp_path / "linear.onnx", np.float32) as graph:
        x = graph.input("x", ir.DataType.FLOAT, ["rows", matrix.columns])
        graph.output(graph.linear(x, "linear", matrix, bias, quantization), "y", ir.DataType.FLOAT, ["rows", 64])
    values = np.random.default_rng(1).standard_normal((5, matrix.columns), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "linear.onnx"), providers=["CPUExecutionProvider"])
    weight = dequantize_rows(*quantize_rows(checkpoint.float32(name), quantization), quantization, matrix.columns)
    np.testing.assert_allclose(session.run(None, {"x": values})[0], values @ weight.T + bias, atol=1e-3)
