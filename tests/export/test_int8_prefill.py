"""int4 folders with int8 prefill: prompts go through row-wise int8 products, single tokens through the 4-bit blocks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from click.testing import CliRunner
from exports import Exports

from phi3v.bench.parity import measure_closeness
from phi3v.cli.info import info
from phi3v.errors import ModelFolderError, OptionError
from phi3v.export import matrix_plan
from phi3v.export.build import export_model
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.decoder import write_decoder
from phi3v.export.dims import tensor_shapes
from phi3v.export.graph import GraphWriter
from phi3v.export.matrix import Matrix
from phi3v.export.observe import open_all_positions
from phi3v.export.precision import folder_bytes, recipe
from phi3v.export.quantize import BlockQuantization
from phi3v.export.row_products import RowProducts, RowWeights
from phi3v.export.synthetic import full_dims
from phi3v.models.folder import ModelDir
from phi3v.models.graph_file import find_data_files
from phi3v.models.manifest import Manifest

pytestmark = pytest.mark.torch

Open = Callable[[Path], onnxruntime.InferenceSession]
BLOCKS = BlockQuantization(4, 32, accuracy_level=4)
LAYER = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


@pytest.fixture(scope="module")
def int8_folder(exports: Exports) -> Path:
    return exports.model("int4", prefill="int8", original_context=256, dtype="float32")


@pytest.fixture(scope="module")
def matrix(checkpoint: Checkpoint) -> Matrix:
    """[128, 64]."""
    return Matrix.slice(checkpoint, "model.layers.0.mlp.gate_up_proj.weight", 0, 128)


def multiply(folder: Path, session: Open, matrix: Matrix, x: np.ndarray, outliers: tuple[int, ...]) -> np.ndarray:
    """`x` times the matrix, twice in one graph, as ONNX Runtime computes it."""
    path = folder / "product.onnx"
    with GraphWriter(path, np.float32) as graph:
        rows = graph.input("x", graph.float, ["rows", matrix.columns])
        products: RowProducts[ir.Value] = RowProducts(graph)
        for name in ("a", "b"):
            graph.output(products.write(rows, name, matrix, outliers), name, graph.float, ["rows", matrix.rows])
    nodes = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    assert nodes.count("QuantizeLinear") == 1  # both read the same rows
    a, b = session(path).run(["a", "b"], {"x": x})
    np.testing.assert_array_equal(a, b)
    return np.asarray(a)


@pytest.mark.parametrize("outliers", [(), (3, 40)])
def test_a_product_is_that_of_rounded_rows_and_columns(
    tmp_path: Path, session: Open, matrix: Matrix, outliers: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)
    x[:, [3, 40]] *= 50
    x[4] = 0
    weights = RowWeights.of(matrix, outliers)
    inner = np.delete(x, outliers, axis=1)
    scale = np.maximum(np.abs(inner).max(axis=1, keepdims=True), 1e-12) / 127
    rounded = np.clip(np.rint(x / scale), -128, 127)
    expected = (rounded @ weights.values.astype(np.float32)) * weights.scales * scale
    expected += x[:, outliers] @ weights.beside
    found = multiply(tmp_path, session, matrix, x, outliers)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-2 * np.abs(expected).max() / 127)
    assert not found[4].any()


def test_outlier_columns_apart_keep_the_others_precise(tmp_path: Path, session: Open, matrix: Matrix) -> None:
    x = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)
    x[:, [3, 40]] *= 50
    exact = x @ np.concatenate(list(matrix.chunks())).T
    errors = [
        np.linalg.norm(multiply(tmp_path, session, matrix, x, outliers) - exact) / np.linalg.norm(exact)
        for outliers in ((), (3, 40))
    ]
    assert errors[1] < errors[0] / 10


@pytest.fixture(scope="module")
def decoders(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """In blocks alone, and with rows for prompts in all but one matrix."""
    folder = tmp_path_factory.mktemp("decoders")
    names = [f"model.layers.{layer}.{part}.weight" for layer in range(2) for part in LAYER][1:]
    rows, blocks = folder / "rows.onnx", folder / "blocks.onnx"
    choice = {"rows": dict.fromkeys(names, ()), "blocks_path": blocks}
    write_decoder(checkpoint, rows, device="cpu", dtype=np.float32, quantization=BLOCKS, **choice)
    return blocks, rows


def feed(
    decoder: onnxruntime.InferenceSession, length: int, past: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
    before = 0 if past is None else next(iter(past.values())).shape[2]
    embeds = np.random.default_rng(length + before).standard_normal((1, length, 64)).astype(np.float32)
    names = [wanted.name for wanted in decoder.get_inputs() if wanted.name.startswith("past_key_values")]
    caches = past or {name: np.zeros((1, 4, 0, 16), dtype=np.float32) for name in names}
    return {"inputs_embeds": embeds, "attention_mask": np.ones((1, before + length), dtype=np.int64), **caches}


@pytest.mark.parametrize("length", [2, 40, 255, 256, 257])
def test_prompts_are_nearer_to_float_than_in_blocks_and_tokens_the_same(
    decoders: tuple[Path, Path], fp32_model: Path, session: Open, length: int
) -> None:
    exact, blocks, rows = (open_all_positions(path) for path in (fp32_model / "text.onnx", *decoders))
    expected, in_blocks, in_rows = (found.run(["logits"], feed(found, length))[0][0] for found in (exact, blocks, rows))
    near, nearer = (measure_closeness(expected, found) for found in (in_blocks, in_rows))
    assert nearer["kl_mean"] < near["kl_mean"]
    own = session(decoders[1])
    _, *present = own.run(None, feed(own, length))
    names = [wanted.name for wanted in own.get_inputs() if wanted.name.startswith("past_key_values")]
    step = feed(own, 1, dict(zip(names, present, strict=True)))
    np.testing.assert_array_equal(own.run(["logits"], step)[0], session(decoders[0]).run(["logits"], step)[0])


def test_one_choice_is_made_a_step_and_what_depends_on_the_mask_is_computed_once(decoders: tuple[Path, Path]) -> None:
    blocks, rows = (onnx.load(path, load_external_data=False).graph for path in decoders)
    assert [node.name for node in rows.node if node.op_type == "If"][-1] == "/model/choice"
    assert sum(node.op_type == "If" for node in rows.node) == 2  # LongRoPE's caches are chosen outside
    branches = {attribute.name: attribute.g for attribute in rows.node[-1].attribute}
    assert not any(node.op_type == "If" for branch in branches.values() for node in branch.node)
    for name, products in (("then_branch", 9), ("else_branch", 0)):
        kinds = [node.op_type for node in branches[name].node]
        assert kinds.count("MatMulIntegerToFloat") == products
        assert kinds.count("GroupQueryAttention") == 2
    weights = {weight.name for weight in blocks.initializer}
    assert weights <= {weight.name for weight in rows.initializer}


def test_the_decoders_share_their_weights_and_those_for_prompts_are_apart(decoders: tuple[Path, Path]) -> None:
    blocks, rows = decoders
    assert find_data_files(blocks) == {"rows.onnx.data"}
    assert find_data_files(rows) == {"rows.onnx.data", "rows.onnx.int8.data"}
    int8 = 2 * (192 * 64 + 64 * 64 + 256 * 64 + 128 * 64)
    assert rows.with_name("rows.onnx.int8.data").stat().st_size < 1.2 * int8


def test_the_manifest_says_how_each_matrix_is_multiplied(int8_folder: Path, int4_model: Path) -> None:
    plans = Manifest.read(int8_folder).extra["prefill"]
    assert len([name for name in plans if name.startswith("model.layers.")]) == 8
    assert all(plan["loss"] < plan["loss_in_blocks"] for name, plan in plans.items() if "layers." in name[:13])
    assert "prefill" not in Manifest.read(int4_model).extra
    assert ModelDir.open(int8_folder).devices == ModelDir.open(int4_model).devices


def test_the_estimate_of_the_folder_includes_the_int8_weights(checkpoint: Checkpoint, int8_folder: Path) -> None:
    size = sum(path.stat().st_size for path in int8_folder.iterdir())
    assert size <= folder_bytes(checkpoint.dims, recipe("int4", "cpu", prefill="int8")) <= 1.1 * size + (4 << 20)


def test_the_estimate_of_the_folder_includes_columns_in_float32() -> None:
    dims = full_dims()
    matrices = {name: shape for name, shape in tensor_shapes(dims).items() if name.endswith("proj.weight")}
    beside = sum(4 * 64 * shape[0] for shape in matrices.values())
    again = sum(shape[0] * shape[1] for name, shape in matrices.items() if name.startswith("model.layers."))
    int8, int4 = (folder_bytes(dims, recipe("int4", "cpu", prefill=prefill)) for prefill in ("int8", "int4"))
    assert int8 - int4 >= again + beside


def test_a_decoder_whose_matrices_all_stay_in_blocks_has_no_choice(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vision tower may be the only part in int8."""
    monkeypatch.setitem(matrix_plan._ALLOWED, 4, (0.0, 0.0))
    out = export_model(checkpoint_dir, tmp_path / "out", prefill="int8")
    names = [node.name for node in onnx.load(out / "text.onnx", load_external_data=False).graph.node]
    assert "/model/choice" not in names
    plans = Manifest.read(out).extra["prefill"]
    assert {plan["rows"] for name, plan in plans.items() if name.startswith("model.layers.")} == {False}
    assert any(plan["rows"] for plan in plans.values())


def test_a_calibration_of_no_prompts_or_for_nothing_is_refused(checkpoint_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no prompt to calibrate on"):
        export_model(checkpoint_dir, tmp_path / "out", prefill="int8", calibration=[])
    with pytest.raises(OptionError, match="calibration and keep are for prefill int8"):
        export_model(checkpoint_dir, tmp_path / "out", prefill="int4", calibration=[("Why?", [])])
    with pytest.raises(OptionError, match="no matrix matches '\\*up'; their names are like model"):
        export_model(checkpoint_dir, tmp_path / "out", prefill="int8", keep=["*up"])
    assert not any(tmp_path.iterdir())


def test_info_lists_every_matrix_by_its_whole_name(int8_folder: Path) -> None:
    done = CliRunner().invoke(info, [str(int8_folder), "--matrices"])
    assert done.exit_code == 0
    for name in ("vision.layers.1.self_attn.out_proj.weight", "layers.1.mlp.gate_up_proj.weight"):
        assert f"\n{name} " in done.output


@pytest.mark.parametrize("prefill", [["a"], {"a": 1}, {"a": {"rows": True}}, {"a": {"rows": True, "outliers": "x"}}])
def test_info_refuses_a_damaged_prefill_by_the_files_name(int4_model: Path, tmp_path: Path, prefill: object) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(int4_model, folder)
    manifest = json.loads((folder / "phi3v.json").read_text())
    (folder / "phi3v.json").write_text(json.dumps(manifest | {"prefill": prefill}))
    with pytest.raises(ModelFolderError, match=r"phi3v\.json"):
        CliRunner().invoke(info, [str(folder)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prefill": "int2"}, "prefill is 'int2'; use one of auto, int4, int8"),
        ({"prefill": "int8", "precision": "fp16"}, "int4 for the CPU can have, and this is fp16 for cpu"),
        ({"prefill": "int8", "device": "cuda"}, "int4 for the CPU can have, and this is int4 for cuda"),
        ({"prefill": "int8", "device": "openvino"}, "and this is int4 for openvino"),
        ({"prefill": "int4", "precision": "int8"}, "precision is int8, which has no int4 weights"),
        ({"precision": "int8", "device": "cuda"}, "int8 cannot run on cuda. row-wise int8 is for processors"),
        ({"precision": "int8", "device": "openvino"}, "int8 cannot run on openvino"),
    ],
)
def test_other_builds_have_no_int8_prefill(
    checkpoint_dir: Path, tmp_path: Path, given: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        export_model(checkpoint_dir, tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_exports_progress_ends_with_all_that_was_read(checkpoint_dir: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    export_model(checkpoint_dir, tmp_path / "out", prefill="int8", progress=lambda *step: seen.append(step))
    stages, done, total = zip(*seen, strict=True)
    assert list(dict.fromkeys(stages)) == ["calibration", "vision", "embedding", "decoder"]
    assert 0.9 * total[-1] <= done[-1] <= total[-1]
    assert json.loads((tmp_path / "out" / "phi3v.json").read_text())["prefill"]
