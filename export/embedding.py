"""The embedding graph: token ids and image features -> the decoder's input.

    input_ids [B, L] int64 (negative = picture slot), image_features [T, hidden] -> inputs_embeds [B, L, hidden]

Slots are filled in order, row by row. One ScatterND does it, and it raises when slots and features differ in number,
either way and on every provider; T = 0 without slots is plain text, and every step of decoding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .checkpoint import Checkpoint
from .dims import EMBED
from .graph import GraphWriter


def write_embedding(checkpoint: Checkpoint, path: Path, *, dtype: npt.DTypeLike, table_dtype: npt.DTypeLike) -> None:
    """Write the graph and its data file; the table is kept in `table_dtype` and cast after the lookup."""
    hidden = checkpoint.dims.decoder.hidden_size
    with GraphWriter(path, dtype) as graph:
        ids = graph.input("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
        features = graph.input("image_features", graph.float, ["num_image_tokens", hidden])
        table = graph.stored(EMBED, checkpoint.read(EMBED).astype(table_dtype))
        text = graph.op("Gather", table, graph.op("Max", ids, graph.scalar(0)), axis=0)
        if np.dtype(table_dtype) != graph.dtype:
            text = graph.op("Cast", text, to=int(graph.float))
        slots = graph.op("Transpose", graph.op("NonZero", graph.op("Less", ids, graph.scalar(0))), perm=[1, 0])
        filled = graph.op("ScatterND", text, slots, features)
        graph.output(filled, "inputs_embeds", graph.float, ["batch_size", "sequence_length", hidden])
