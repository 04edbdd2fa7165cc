"""One decoder out of two: one for prompts, one for a single token, chosen by the number of positions.

    inputs_embeds [B, S, hidden] -> If(S > 1): the decoder for prompts, else: the one for a token

Both were made by the same builder, so what they compute from the mask alone (the rotary caches, the lengths) has the
same names: it stays outside, once. KV buffers are the graph's own inputs and outputs, which both branches write in
place.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

_MANY, _ONE = "many", "one"
_CHOICE = "/model/choice"


def choose_by_length(many: onnx.ModelProto, one: onnx.ModelProto) -> onnx.ModelProto:
    """Merge the decoder for prompts of more than one position with that for one."""
    both = onnx.ModelProto()
    both.CopyFrom(one)
    graph = both.graph
    inside = _depend_on(one.graph, {value.name for value in one.graph.input} - {"attention_mask"})
    outside = [node for node in one.graph.node if not _makes(node, inside)]
    shared = {name for node in outside for name in node.output}
    branches = {
        name: _make_branch(name, source.graph, [node for node in source.graph.node if not _makes(node, shared)])
        for name, source in ((_MANY, many), (_ONE, one))
    }
    for field in ("node", "initializer", "value_info"):
        graph.ClearField(field)
    graph.initializer.extend({weight.name: weight for m in (many, one) for weight in m.graph.initializer}.values())
    graph.initializer.append(helper.make_tensor(f"{_CHOICE}/one", onnx.TensorProto.INT64, [1], [1]))
    graph.node.extend(outside)
    positions, longer = f"{_CHOICE}/positions", f"{_CHOICE}/many"
    outputs = [output.name for output in graph.output]
    shape, second = f"{_CHOICE}/shape", f"{_CHOICE}/one"  # the number 1 is also where the shape has the positions
    graph.node.append(helper.make_node("Shape", ["inputs_embeds"], [shape], shape))
    graph.node.append(helper.make_node("Gather", [shape, second], [positions], positions))
    graph.node.append(helper.make_node("Greater", [positions, f"{_CHOICE}/one"], [longer], longer))
    choices = {"then_branch": branches[_MANY], "else_branch": branches[_ONE]}
    graph.node.append(helper.make_node("If", [longer], outputs, _CHOICE, **choices))
    return both


def _depend_on(graph: onnx.GraphProto, names: set[str]) -> set[str]:
    """Names of all values that are computed from these, themselves included."""
    found = set(names)
    for node in graph.node:  # sorted
        if found.intersection(node.input):
            found.update(node.output)
    return found


def _makes(node: onnx.NodeProto, names: set[str]) -> bool:
    return not names.isdisjoint(node.output)


def _make_branch(name: str, source: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> onnx.GraphProto:
    """A graph of nodes whose outputs are the source's, under names that the graph around it does not have."""
    renamed = {output.name: f"{output.name}/{name}" for output in source.output}
    branch = onnx.GraphProto(name=name)
    for node in nodes:
        copy = branch.node.add()
        copy.CopyFrom(node)
        copy.output[:] = [renamed.get(output, output) for output in node.output]
        copy.input[:] = [renamed.get(value, value) for value in node.input]
    for output in source.output:
        copied = branch.output.add()
        copied.CopyFrom(output)
        copied.name = renamed[output.name]
    return branch
