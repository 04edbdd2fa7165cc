"""Runs a graph and hands over some of the values inside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from .decoder_builder import LAST_POSITIONS

_AT_ONCE = 24
"""Values that one run hands over: at the real width and 700 tokens, some 300 MB."""

Array = npt.NDArray[np.float32]


def open_all_positions(path: Path, inside: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    """Open a decoder so that its logits are those of every position; its own are of each row's last real one.

    Any other graph opens as it is. `inside` names values that become outputs too.
    """
    model = onnx.load(path, load_external_data=False)
    for graph in _list_graphs(model.graph):
        lasts = [n for n in graph.node if n.op_type == "GatherElements" and n.name.startswith(LAST_POSITIONS)]
        all_of = {last.output[0]: last.input[0] for last in lasts}
        for node in graph.node if all_of else ():
            node.input[:] = [all_of.get(name, name) for name in node.input]
        for output in graph.output:
            if output.name.startswith("logits"):
                output.type.tensor_type.ClearField("shape")
        del graph.value_info[:]
    own = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside if name not in own)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def observe(path: Path, names: Sequence[str], feeds: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Array]]]:
    """The value of each name in a run over each of `feeds`, as rows [tokens, columns], in the order of the names."""
    for begin in range(0, len(names), _AT_ONCE):
        some = names[begin : begin + _AT_ONCE]
        session = open_all_positions(path, some)
        runs = [session.run(some, feed) for feed in feeds]
        del session
        for at, name in enumerate(some):
            yield name, [np.asarray(run[at], dtype=np.float32).reshape(-1, run[at].shape[-1]) for run in runs]


def _list_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those of the branches that it chooses from."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _list_graphs(attribute.g)
