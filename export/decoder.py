"""The decoder graph, made by onnxruntime-genai's own model builder (decoder_builder.py).

    inputs_embeds, attention_mask, past_key_values.%d.key/value -> logits, present.%d.key/value

The logits are of each row's last real position.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from .branches import choose_by_length
from .checkpoint import Checkpoint
from .decoder_builder import Products, WeightStore, builder_config, streaming_builder
from .quantize import BlockQuantization
from .weight_file import WeightFile

_log = logging.getLogger("phi3v")


def write_decoder(
    checkpoint: Checkpoint,
    path: Path,
    *,
    device: str,
    dtype: npt.DTypeLike,
    quantization: BlockQuantization | None = None,
    head: BlockQuantization | None = None,
    rows: Mapping[str, tuple[int, ...]] | None = None,
    blocks_path: Path | None = None,
) -> None:
    """Write the graph and its data file; `dtype` is float32 or float16, `quantization` None keeps weights in it.

    `head` quantises the matrix before the logits otherwise than the rest. `rows` names the matrices, by the
    checkpoint's tensors, that are multiplied in row-wise int8, and their outlier columns. With `blocks_path` only
    prompts of more than one position are, a single token takes `quantization` all the same, and there the graph is
    written that takes it for prompts too, on the same data.
    """
    with ExitStack() as stack:
        stack.enter_context(_builder_prints_to_log())
        file = stack.enter_context(WeightFile(path.with_name(path.name + ".data")))
        beside = rows and blocks_path
        int8 = stack.enter_context(WeightFile(path.with_name(path.name + ".int8.data"))) if beside else file
        store = WeightStore(checkpoint, file, int8)

        def make(products: Products) -> onnx.ModelProto:
            return _make_model(store, path, device, ir.DataType.from_numpy(np.dtype(dtype)), products)

        model = make(Products(quantization, head or quantization, rows or {}))
        if rows and blocks_path:
            in_blocks = make(Products(quantization, head or quantization))
            onnx.save(in_blocks, blocks_path)
            model = choose_by_length(model, in_blocks)
        onnx.save(model, path)


def _make_model(
    store: WeightStore, path: Path, device: str, io_type: ir.DataType, products: Products
) -> onnx.ModelProto:
    dims = store.checkpoint.dims.decoder
    weight_type = io_type if products.blocks is None else ir.DataType.INT4
    options = {"exclude_embeds": True, "filename": path.name}
    builder = streaming_builder(dims.long_rope is not None)
    config = builder_config(dims, str(store.checkpoint.path))
    model = builder(store, products, config, io_type, weight_type, device, "", options)
    model.make_model("")
    model.model.graph.sort()
    proto: onnx.ModelProto = ir.to_proto(model.model)
    return proto


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
