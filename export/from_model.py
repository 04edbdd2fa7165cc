"""A folder with int8 prefill from a folder in blocks, such as a published build: no checkpoint, no PyTorch.

Weights in row-wise int8 are made of those in blocks, so nothing that rounding to 4 bits has lost comes back. The other
weights are not copied: both folders share their bytes on disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ..errors import ModelFolderError, OptionError
from ..models.files import name_in_errors, read_json
from ..models.folder import BLOCK_GRAPHS, GENAI_CONFIG, ModelDir
from ..models.manifest import MANIFEST, Manifest
from ..prepare import HdPreprocessor
from .block_matrix import BlockMatrix
from .blocks_to_rows import find_matrices, replace_blocks
from .branches import choose_by_length
from .calibration import MOST_TOKENS, Calibration, default_calibration
from .matrix_plan import (
    MatrixPlan,
    describe_plans,
    keep_in_blocks,
    plan_stored_matrix,
    sample_outputs,
    sample_tokens,
)
from .observe import observe, open_all_positions
from .progress import Meter, Progress
from .target import new_folder
from .weight_file import WeightFile

_GRAPHS = {"vision": "vision.onnx", "decoder": "text.onnx"}
"""Names of the new graphs; those of the model they are made from get the names in BLOCK_GRAPHS."""


def add_int8_prefill(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    keep: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build the model folder `out` from a model folder for the CPU whose matrices are in blocks; returns `out`.

    A matrix is named by its node in the graph. `calibration`, `keep` and `overwrite` as in `export_model`. Raises
    ModelFolderError for a folder that has nothing to multiply in rows or has int8 already, or for what `new_folder`
    refuses; OptionError, DiskSpaceError.
    """
    source = ModelDir.open(model)
    graphs = {part: source.path / name for part, name in _file_names(source).items() if part in _GRAPHS}
    _check(source, graphs)
    models = {part: _read(graph) for part, graph in graphs.items()}
    matrices = {part: _matrices_of(models[part], source.path) for part in graphs}
    if not matrices["decoder"]:
        raise ModelFolderError(
            f"{graphs['decoder']} has no matrix in blocks (MatMulNBits); int8 prefill is for int4 builds: take one, or "
            "`phi3v export CHECKPOINT FOLDER --prefill int8`"
        )
    values = sum(matrix.rows * matrix.columns for part in matrices.values() for matrix in part.values())
    with new_folder(Path(out), source.path, int(1.1 * values) + (128 << 20), overwrite=overwrite) as folder:
        meter = Meter(2 * values, progress)
        _share_files(source, graphs, folder)
        meter.enter("calibration")
        plans = keep_in_blocks(_plan(source, folder, matrices, calibration, meter), keep)
        _write(source, models, matrices, plans, folder, meter)
    return Path(out)


def _check(source: ModelDir, graphs: Mapping[str, Path]) -> None:
    if source.int8_prefill:
        raise ModelFolderError(f"{source.path} has int8 prefill already; `phi3v info {source.path}` describes it")
    if source.pixel_dtype != "float32" or source.built_for != "cpu":
        raise ModelFolderError(
            f"{source.path} was built for {source.built_for} in {source.pixel_dtype}; int8 prefill is for the CPU's "
            "int4 builds, which compute in float32"
        )
    taken = {*_GRAPHS.values(), *BLOCK_GRAPHS.values()} - {graph.name for graph in graphs.values()}
    if found := sorted(name for name in taken if (source.path / name).exists()):
        raise ModelFolderError(f"{source.path} holds {found[0]}, which is none of its graphs; move it away")


def _read(graph: Path) -> onnx.ModelProto:
    try:
        return onnx.load(graph, load_external_data=False)
    except (OSError, DecodeError) as exc:
        raise ModelFolderError(f"{graph} is not a readable ONNX graph ({exc}); fetch the model again") from exc


def _matrices_of(model: onnx.ModelProto, folder: Path) -> dict[str, BlockMatrix]:
    """Every matrix but the head, which multiplies one position a row, by its node."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {output.name for output in model.graph.output}
    found = {}
    for node in find_matrices(model):
        matrix = BlockMatrix.of(node, tensors, folder)
        if matrix is not None and matrix.bits in (4, 8) and not outputs.intersection(node.output):
            found[node.name] = matrix
    return found


def _plan(
    source: ModelDir,
    folder: Path,
    matrices: Mapping[str, Mapping[str, BlockMatrix]],
    calibration: Calibration | None,
    meter: Meter,
) -> dict[str, MatrixPlan]:
    """Run the model's own graphs on the prompts, and plan each matrix on the inputs it had."""
    vision, decoder = _feeds(source, folder, default_calibration() if calibration is None else calibration)
    plans = {}
    for part, feeds in (("vision", vision), ("decoder", decoder)):
        if not feeds:
            continue
        graph = folder / BLOCK_GRAPHS[part]
        inputs = {node.name: node.input[0] for node in find_matrices(_read(graph))}
        readers: dict[str, list[str]] = {}
        for name in matrices[part]:
            readers.setdefault(inputs[name], []).append(name)
        for value, runs in observe(graph, list(readers), feeds):
            firsts = np.cumsum([0, *(len(run) for run in runs[:-1])])
            x = np.concatenate(runs)
            x = x[sample_tokens(len(x), firsts)]
            for name in readers[value]:
                matrix = matrices[part][name]
                rows = sample_outputs(matrix.rows)
                loss = matrix.rounding_loss(rows)
                plans[name] = plan_stored_matrix(matrix.read_rows(rows), x, matrix.bits, loss)
                meter.add(matrix.rows * matrix.columns)
    return plans


def _feeds(
    source: ModelDir, folder: Path, calibration: Calibration
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the vision graph and the decoder get for each prompt; images in one crop beside the global one."""
    prepare = HdPreprocessor(source, "cpu")
    prompts = [prepare.preprocess(prompt, images, 1) for prompt, images in calibration]
    if not prompts:
        raise OptionError("there is no prompt to calibrate on; give one or more, or leave the choice to phi3v")
    if (total := sum(len(one.input_ids) for one in prompts)) > MOST_TOKENS:
        raise OptionError(f"the calibration prompts have {total} tokens; allowed: {MOST_TOKENS}; give fewer")
    vision = [
        {"pixel_values": one.pixel_values, "image_sizes": one.image_sizes}
        for one in prompts
        if one.pixel_values is not None
    ]
    names = (BLOCK_GRAPHS["vision"], _file_names(source)["embedding"])
    tower, embedding = (open_all_positions(folder / name) for name in names)
    features = iter([tower.run(["image_features"], feed)[0] for feed in vision])
    with name_in_errors(source.path / GENAI_CONFIG) as file:
        decoder = read_json(file)["model"]["decoder"]
        heads, size, layers = (int(decoder[n]) for n in ("num_key_value_heads", "head_size", "num_hidden_layers"))
    nothing = np.zeros((1, heads, 0, size), dtype=np.float32)
    past = {f"past_key_values.{n}.{kind}": nothing for n in range(layers) for kind in ("key", "value")}
    feeds = []
    for one in prompts:
        found = next(features) if one.pixel_values is not None else np.zeros((0, source.hidden_size), np.float32)
        ids = one.input_ids[np.newaxis].astype(_type_of(embedding, "input_ids"))
        (hidden,) = embedding.run(None, {"input_ids": ids, "image_features": found})
        feeds.append({"inputs_embeds": hidden, "attention_mask": np.ones(ids.shape, np.int64), **past})
    return vision, feeds


def _type_of(session: Any, name: str) -> type[np.integer[Any]]:
    kind = next(value.type for value in session.get_inputs() if value.name == name)
    return np.int32 if "int32" in kind else np.int64


def _share_files(source: ModelDir, graphs: Mapping[str, Path], folder: Path) -> None:
    """Every file but the configuration; the graphs under the names they get. ONNX Runtime reads no other folder's."""
    for part, graph in graphs.items():
        _share(graph, folder / BLOCK_GRAPHS[part])
    left_out = {graph.name for graph in graphs.values()} | {GENAI_CONFIG, MANIFEST}
    for file in sorted(source.path.iterdir()):
        if file.is_file() and file.name not in left_out:
            _share(file, folder / file.name)


def _write(
    source: ModelDir,
    models: Mapping[str, onnx.ModelProto],
    matrices: Mapping[str, Mapping[str, BlockMatrix]],
    plans: Mapping[str, MatrixPlan],
    folder: Path,
    meter: Meter,
) -> None:
    for part in models:
        meter.enter(part)
        rows = {name: plans[name].outliers for name in matrices[part] if name in plans and plans[name].rows}
        if not rows:
            (folder / BLOCK_GRAPHS[part]).rename(folder / _GRAPHS[part])
            continue
        new = folder / _GRAPHS[part]
        with WeightFile(new.with_name(f"{new.name}.int8.data")) as weights:
            made = replace_blocks(models[part], matrices[part], rows, weights)
        onnx.save(choose_by_length(made, models[part]) if part == "decoder" else made, new)
        meter.add(sum(matrices[part][name].rows * matrices[part][name].columns for name in rows))
    with name_in_errors(source.path / GENAI_CONFIG) as config_file:
        config = read_json(config_file)
        for part, name in _GRAPHS.items():
            config["model"][part]["filename"] = name
    (folder / GENAI_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    manifest = Manifest.find(source.path) or Manifest(device="cpu", pixel_dtype="float32")
    new_names = {*_GRAPHS.values(), *BLOCK_GRAPHS.values(), GENAI_CONFIG}
    known = {name: total for name, total in manifest.sha256.items() if name not in new_names}
    extra = {**manifest.extra, "prefill": describe_plans(plans)}
    replace(manifest, extra=extra, origin=None, precision=manifest.precision or "int4").with_files_of(
        folder, known
    ).write(folder)


def _file_names(source: ModelDir) -> dict[str, str]:
    with name_in_errors(source.path / GENAI_CONFIG) as file:
        model = read_json(file)["model"]
        return {part: str(model[part]["filename"]) for part in ("vision", "embedding", "decoder")}


def _share(file: Path, link: Path) -> None:
    """Give a file's bytes a second name; copy them where the disk is another. A symbolic link ONNX Runtime refuses."""
    try:
        os.link(file.resolve(), link)
    except OSError:
        shutil.copyfile(file, link)
