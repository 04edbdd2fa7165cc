"""The embedding graph: token ids and image features -> the decoder's input.

    input_ids [B, L] int64 (negative = picture slot), image_features [T, hidden] -> inputs_embeds [B, L, hidden]

Slots are filled in order, row by row; T = 0 without slots is plain text, and every step of decoding. On the CPU one
ScatterND does it, and it raises when slots and features differ in number. It needs the slots' places, and finding them
(NonZero) makes a GPU wait: it has to tell the host how many there are, with every token. So on a GPU each slot looks up
the feature of its number, and nothing raises: genai/model.py compares the numbers beforehand, on every device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .checkpoint import Checkpoint
from .dims import EMBED
from .graph import GraphWriter


def write_embedding(
    checkpoint: Checkpoint, path: Path, *, device: str, dtype: npt.DTypeLike, table_dtype: npt.DTypeLike
) -> None:
    """Write the graph and its data file; the table is kept in `table_dtype` and cast after the lookup."""
    hidden = checkpoint.dims.decoder.hidden_size
    with GraphWriter(path, dtype) as graph:
        ids = graph.input("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
        features = graph.input("image_features", graph.float, ["num_image_tokens", hidden])
        table = graph.stored(EMBED, checkpoint.read(EMBED).astype(table_dtype))
        text = graph.op("Gather", table, graph.op("Max", ids, graph.scalar(0)), axis=0)
        if np.dtype(table_dtype) != graph.dtype:
            text = graph.op("Cast", text, to=int(graph.float))
        is_slot = graph.op("Less", ids, graph.scalar(0))
        if device != "cuda":
            filled = _scatter_features(graph, is_slot, text, features)
        else:
            nothing = graph.weight("no_feature", np.zeros((1, hidden)))
            filled = _look_up_features(graph, is_slot, text, graph.op("Concat", nothing, features, axis=0))
        graph.output(filled, "inputs_embeds", graph.float, ["batch_size", "sequence_length", hidden])


def _scatter_features(graph: GraphWriter, is_slot: ir.Value, text: ir.Value, features: ir.Value) -> ir.Value:
    slots = graph.op("Transpose", graph.op("NonZero", is_slot), perm=[1, 0])
    return graph.op("ScatterND", text, slots, features)


def _look_up_features(graph: GraphWriter, is_slot: ir.Value, text: ir.Value, rows: ir.Value) -> ir.Value:
    """Number the slots from 1, in order, and take those `rows`. Text takes row 0, which is not used."""
    flat = graph.op("Reshape", graph.op("Cast", is_slot, to=int(ir.DataType.INT64)), graph.ints(-1))
    number = graph.op("Mul", flat, graph.op("CumSum", flat, graph.scalar(0)))
    found = graph.op("Gather", rows, graph.op("Reshape", number, graph.op("Shape", is_slot)), axis=0)
    return graph.op("Where", graph.op("Unsqueeze", is_slot, graph.ints(-1)), found, text)
