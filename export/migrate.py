"""A published build in the old layout -> a folder that today's genai loads. Needs onnx, no PyTorch; copies no weights.

The old layout (before genai 0.5): the vision graph takes one image and gives `visual_features` [1, T, hidden], the
embedding graph takes `input_ids` alone, and genai itself puts the features in. Today the vision graph gives
`image_features` [T, hidden] for all images one after the other, and the embedding graph puts them into the slots.
Both old graphs are wrapped and otherwise unchanged; their weights get a second name in the new folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from ..errors import ModelFolderError
from ..models.files import name_in_errors, read_json
from ..models.folder import GENAI_CONFIG, old_layout
from ..models.manifest import Manifest

_PIXELS, _SIZES, _OLD_FEATURES, _FEATURES = "pixel_values", "image_sizes", "visual_features", "image_features"
_IDS, _EMBEDS = "input_ids", "inputs_embeds"
_SAFE_OPSET = 15
"""From here on every operator used in the wrapping means the same in all opsets."""


class _OtherGraphError(Exception):
    """A graph that is not built as those of the published old builds; the message says in what."""


@dataclass(frozen=True, slots=True)
class _OldBuild:
    """A folder in the old layout: its genai_config.json, the decoder's width, and the names of the graphs to wrap."""

    folder: Path
    config: dict[str, Any]
    hidden: int
    vision: str
    embedding: str

    @classmethod
    def open(cls, folder: Path) -> _OldBuild:
        if not (folder / GENAI_CONFIG).is_file():
            raise ModelFolderError(f"{folder} has no {GENAI_CONFIG}; give an old build's folder")
        with name_in_errors(folder / GENAI_CONFIG) as file:
            config = read_json(file)
            model = config["model"]
            if not old_layout(model):
                raise ModelFolderError(f"{folder} is in today's layout; it needs no migration")
            files = (str(model[part]["filename"]) for part in ("vision", "embedding"))
            return cls(folder, config, int(model["decoder"]["hidden_size"]), *files)

    @property
    def replaced(self) -> set[str]:
        """Names of the files that the new folder has in another form."""
        return {self.vision, self.embedding, GENAI_CONFIG}


def migrate(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    sha256: dict[str, str] | None = None,
) -> Path:
    """Write the folder `new` from the old-layout folder `old`; returns `new`.

    Several images in one request work: the old vision graph runs once for each. Both folders share the weights'
    bytes, and either may be deleted. `sha256` holds known checksums of files of `old`, which are then not read for it.
    Raises ModelFolderError when `old` is not in the old layout or not built as the published ones, `new` exists, or
    they lie on different disks.
    """
    target, build = Path(new), _OldBuild.open(Path(old))
    if target.exists() and not overwrite:
        raise ModelFolderError(f"{target} exists; give another name")
    scratch = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        scratch.mkdir(parents=True)
        _write(build, scratch, sha256 or {})
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def _write(build: _OldBuild, folder: Path, sha256: dict[str, str]) -> None:
    for file in sorted(build.folder.iterdir()):
        if file.is_file() and file.name not in build.replaced:
            _link(file, folder / file.name)
    vision = _wrap(build.folder / build.vision, folder, wrap_vision, build.hidden)
    _wrap(build.folder / build.embedding, folder, wrap_embedding, build.hidden)
    _write_config(build.config, folder)
    kind = _only(vision.graph.input, _PIXELS).type.tensor_type.elem_type
    with name_in_errors(build.folder / build.vision):
        manifest = Manifest(name=build.folder.resolve().name, pixel_dtype=helper.tensor_dtype_to_np_dtype(kind).name)
    linked = {name: known for name, known in sha256.items() if name not in build.replaced}
    manifest.with_files_of(folder, linked).write(folder)


def _wrap(
    graph: Path, folder: Path, wrap: Callable[[onnx.ModelProto, int], onnx.ModelProto], hidden: int
) -> onnx.ModelProto:
    """Write a graph of the old build, wrapped, under its own name; returns the wrapped one."""
    try:
        wrapped = wrap(_load(graph), hidden)
    except _OtherGraphError as exc:
        raise ModelFolderError(
            f"{graph} {exc}: it is not the graph of a published old build, and cannot be migrated"
        ) from exc
    onnx.save(wrapped, folder / graph.name)
    return wrapped


def _load(graph: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(graph, load_external_data=False)
    except (OSError, DecodeError) as exc:
        raise ModelFolderError(f"{graph} is not a readable ONNX graph ({exc}); fetch the build again") from exc
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _SAFE_OPSET:
        raise ModelFolderError(f"{graph} uses opset {opset}; from {_SAFE_OPSET} on it can be migrated")
    return model


def _link(file: Path, link: Path) -> None:
    """Hard-link a file: ONNX Runtime follows no symbolic link out of a model's folder."""
    try:
        os.link(file.resolve(), link)
    except OSError as exc:
        raise ModelFolderError(
            f"{link.parent} cannot share the weights of {file.parent} ({exc.strerror}); give a folder on the same disk"
        ) from exc


def _write_config(config: dict[str, Any], folder: Path) -> None:
    model = config["model"]
    model["vision"]["outputs"] = {_FEATURES: _FEATURES}
    model["embedding"]["inputs"] = {_IDS: _IDS, _FEATURES: _FEATURES}
    model["embedding"]["outputs"] = {_EMBEDS: _EMBEDS}
    (folder / GENAI_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def wrap_vision(old: onnx.ModelProto, hidden: int) -> onnx.ModelProto:
    """Make the old graph the body of a loop over images, and put their features one after the other."""
    graph = _copy(old.graph)
    pixels, sizes = _only(graph.input, _PIXELS), _only(graph.input, _SIZES)
    kind = _only(graph.output, _OLD_FEATURES).type.tensor_type.elem_type
    _rename(graph, {_PIXELS: "one_image_pixels", _SIZES: "one_image_size", _OLD_FEATURES: "one_image_features"})
    features = [helper.make_tensor_value_info(name, kind, ["tokens", hidden]) for name in ("before", "after")]
    going_on = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("going_on", "going_on_after")]
    body = helper.make_graph(
        [
            *_constants(first_axis=[0], feature_shape=[-1, hidden]),
            helper.make_node("Unsqueeze", ["one_image", "first_axis"], ["one_image_index"]),
            helper.make_node("Gather", [_PIXELS, "one_image_index"], ["given_pixels"], axis=0),
            *_pad_crops(pixels.type.tensor_type.shape.dim[1].dim_value),
            helper.make_node("Gather", [_SIZES, "one_image_index"], ["one_image_size"], axis=0),
            *graph.node,
            helper.make_node("Reshape", ["one_image_features", "feature_shape"], ["flat_features"]),
            helper.make_node("Concat", ["before", "flat_features"], ["after"], axis=0),
            helper.make_node("Identity", ["going_on"], ["going_on_after"]),
        ],
        "one_image_body",
        [helper.make_tensor_value_info("one_image", TensorProto.INT64, []), going_on[0], features[0]],
        [going_on[1], features[1]],
        value_info=graph.value_info,
    )
    nothing = helper.make_tensor("filler", kind, [1], [0])
    size_type, pixel_type = (value.type.tensor_type.elem_type for value in (sizes, pixels))
    wrapped = helper.make_graph(
        [
            *_constants(no_features=[0, hidden]),
            helper.make_node("Constant", [], ["first"], value_int=0),
            helper.make_node("Shape", [_SIZES], ["sizes_shape"]),
            helper.make_node("Gather", ["sizes_shape", "first"], ["image_count"], axis=0),
            helper.make_node("ConstantOfShape", ["no_features"], ["nothing"], value=nothing),
            helper.make_node("Loop", ["image_count", "", "nothing"], [_FEATURES], body=body),
        ],
        graph.name,
        [
            helper.make_tensor_value_info(_PIXELS, pixel_type, ["num_images", "num_crops", 3, "height", "width"]),
            helper.make_tensor_value_info(_SIZES, size_type, ["num_images", 2]),
        ],
        [helper.make_tensor_value_info(_FEATURES, kind, ["num_image_tokens", hidden])],
        initializer=graph.initializer,
    )
    return _with_graph(old, wrapped)


def wrap_embedding(old: onnx.ModelProto, hidden: int) -> onnx.ModelProto:
    """Make the old lookup look negative ids up as 0, and then replace those rows by the features, in order."""
    if any(value.name == _FEATURES for value in old.graph.input):
        raise _OtherGraphError(f"takes {_FEATURES} already")
    graph = _copy(old.graph)
    ids = _only(graph.input, _IDS).type.tensor_type.elem_type
    kind = _only(graph.output, _EMBEDS).type.tensor_type.elem_type
    _rename(graph, {_IDS: "text_ids", _EMBEDS: "text_embeds"})
    wrapped = helper.make_graph(
        [
            helper.make_node("Constant", [], ["smallest_id"], value=helper.make_tensor("zero", ids, [], [0])),
            helper.make_node("Max", [_IDS, "smallest_id"], ["text_ids"]),
            *graph.node,
            helper.make_node("Less", [_IDS, "smallest_id"], ["is_slot"]),
            helper.make_node("NonZero", ["is_slot"], ["slot_columns"]),
            helper.make_node("Transpose", ["slot_columns"], ["slots"], perm=[1, 0]),
            helper.make_node("ScatterND", ["text_embeds", "slots", _FEATURES], [_EMBEDS]),
        ],
        graph.name,
        [
            helper.make_tensor_value_info(_IDS, ids, ["batch_size", "sequence_length"]),
            helper.make_tensor_value_info(_FEATURES, kind, ["num_image_tokens", hidden]),
        ],
        [helper.make_tensor_value_info(_EMBEDS, kind, ["batch_size", "sequence_length", hidden])],
        initializer=graph.initializer,
    )
    return _with_graph(old, wrapped)


def _constants(**vectors: list[int]) -> list[onnx.NodeProto]:
    return [helper.make_node("Constant", [], [name], value_ints=values) for name, values in vectors.items()]


def _pad_crops(crops: int) -> list[onnx.NodeProto]:
    """Pad with empty crops for a graph made for a fixed number of them; any other takes as many as are given."""
    if not crops:
        return [helper.make_node("Identity", ["given_pixels"], ["one_image_pixels"])]
    return [
        *_constants(most=[crops], one=[1], two=[2], pads_before=[0] * 6, pads_after=[0] * 3),
        helper.make_node("Shape", ["given_pixels"], ["given_shape"]),
        helper.make_node("Slice", ["given_shape", "one", "two"], ["crops_given"]),
        helper.make_node("Sub", ["most", "crops_given"], ["crops_lacking"]),
        helper.make_node("Concat", ["pads_before", "crops_lacking", "pads_after"], ["pads"], axis=0),
        helper.make_node("Pad", ["given_pixels", "pads"], ["one_image_pixels"]),
    ]


def _copy(graph: onnx.GraphProto) -> onnx.GraphProto:
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    return copy


def _with_graph(old: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    new = onnx.ModelProto()
    new.CopyFrom(old)
    new.graph.CopyFrom(graph)
    return new


def _only(values: Iterable[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    for value in values:
        if value.name == name:
            return value
    raise _OtherGraphError(f"has no {name}")


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give values other names, also in nested graphs, which see the names of the graph around them."""
    for node in graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs):
                _rename(nested, names)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
