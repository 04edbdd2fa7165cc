"""Writes a model folder in the layout of the builds published before genai 0.5, from one in today's layout."""

import json
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_old_layout(new: Path, old: Path, *, crops: int | None = None) -> Path:
    """One picture, `visual_features` [1, T, hidden], an embedding graph of `input_ids` alone.

    `crops` fixes the number of crops the vision graph takes, as an exporter without free dimensions would.
    """
    shutil.copytree(new, old)
    (old / "phi3v.json").unlink()
    config = json.loads((old / "genai_config.json").read_text())
    hidden = config["model"]["decoder"]["hidden_size"]

    vision = onnx.load(old / "vision.onnx", load_external_data=False)
    graph = vision.graph
    kind = graph.output[0].type.tensor_type.elem_type
    graph.node.append(helper.make_node("Constant", [], ["front"], value_ints=[0]))
    graph.node.append(helper.make_node("Unsqueeze", ["image_features", "front"], ["visual_features"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("visual_features", kind, [1, "tokens", hidden]))
    for value in graph.input:
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_value = 1
        if value.name == "pixel_values" and crops:
            value.type.tensor_type.shape.dim[1].Clear()
            value.type.tensor_type.shape.dim[1].dim_value = crops
    onnx.save(vision, old / "vision.onnx")

    embedding = onnx.load(old / "embedding.onnx", load_external_data=False)
    table = embedding.graph.initializer
    (weights,) = [t for t in table if t.data_location == TensorProto.EXTERNAL]
    lookup = helper.make_node("Gather", [weights.name, "input_ids"], ["inputs_embeds"])
    ids, output = embedding.graph.input[0], embedding.graph.output[0]
    plain = helper.make_graph([lookup], "embedding", [ids], [output], initializer=[weights])
    embedding.graph.CopyFrom(plain)
    onnx.save(embedding, old / "embedding.onnx")

    config["model"]["vision"]["outputs"] = {"visual_features": "visual_features"}
    config["model"]["embedding"]["inputs"] = {"input_ids": "input_ids"}
    (old / "genai_config.json").write_text(json.dumps(config))
    return old
