"""int8 prefill for a folder in blocks, without the checkpoint it was made of."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from exports import Exports

import phi3v
from phi3v.bench.parity import compute_logits, measure_closeness
from phi3v.cli.main import main
from phi3v.errors import ModelFolderError, OptionError
from phi3v.export.block_matrix import BlockMatrix
from phi3v.export.blocks_to_rows import find_matrices, replace_blocks
from phi3v.export.build import export_model
from phi3v.export.from_model import add_int8_prefill
from phi3v.export.quantize import BlockQuantization, dequantize_rows, quantize_rows
from phi3v.export.weight_file import WeightFile
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.models.manifest import Manifest, verify
from phi3v.prepare import HdPreprocessor

pytestmark = pytest.mark.torch
IMAGE = Path(__file__).parents[2] / "examples" / "cover.png"


@pytest.fixture(scope="module")
def published(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is published: blocks of 32, graphs of other names, no manifest."""
    folder = tmp_path_factory.mktemp("published") / "cpu-int4"
    made = export_model(exports.checkpoint(original_context=256), folder, block_size=32, prefill="int4")
    (made / "phi3v.json").unlink()
    config = json.loads((made / "genai_config.json").read_text())
    for part, name in (("decoder", "text"), ("vision", "vision")):
        (made / f"{name}.onnx").rename(made / f"phi-3-v-128k-instruct-{name}.onnx")
        config["model"][part]["filename"] = f"phi-3-v-128k-instruct-{name}.onnx"
    (made / "genai_config.json").write_text(json.dumps(config))
    return made


@pytest.fixture(scope="module")
def faster(published: Path) -> Path:
    return add_int8_prefill(published, published.parent / "faster")


def logits(folder: Path) -> np.ndarray:
    prepare = HdPreprocessor(ModelDir.open(folder), "cpu")
    return compute_logits(folder, prepare.preprocess("What is the title?", [phi3v.images.load.load_image(IMAGE)], 1))


def tokens(folder: Path, prefill: str) -> tuple[int, ...]:
    with phi3v.load(folder, "cpu", prefill=prefill) as engine:  # type: ignore[arg-type]
        return tuple(engine.generate("What is the title?", [IMAGE], max_new_tokens=8).token_ids)


def test_the_new_folder_has_both_ways_and_without_int8_answers_as_before(published: Path, faster: Path) -> None:
    model = ModelDir.open(faster)
    assert model.int8_prefill
    assert set(model.block_graphs) == {"vision", "decoder"}
    assert tokens(faster, "int4") == tokens(published, "auto")
    assert verify(faster) == {}


def test_int8_of_blocks_is_near_to_what_it_was_made_of(published: Path, faster: Path) -> None:
    near = measure_closeness(logits(published), logits(faster))
    assert near["cosine_mean"] > 0.99
    plans = Manifest.read(faster).extra["prefill"]
    assert sum(plan["rows"] for plan in plans.values()) > len(plans) / 2


def test_the_other_weights_are_not_copied_and_the_old_folder_stays(published: Path, faster: Path) -> None:
    assert (published / "text.onnx.data").samefile(faster / "text.onnx.data")
    before = {file.name: file.stat().st_size for file in published.iterdir()}
    assert "phi3v.json" not in before
    assert len(tokens(published, "auto")) == 8


def test_a_matrix_in_blocks_reads_as_the_kernel_does(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((48, 100)).astype(np.float32)
    for bits in (4, 8):
        blocks = BlockQuantization(bits, 32)
        packed, scales = quantize_rows(weight, blocks)
        stored = {"w": onnx.numpy_helper.from_array(packed, "w"), "s": onnx.numpy_helper.from_array(scales, "s")}
        sizes = {"N": 48, "K": 100, "bits": bits, "block_size": 32}
        node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], **sizes)
        matrix = BlockMatrix.of(node, stored, tmp_path)
        assert matrix is not None
        np.testing.assert_array_equal(
            np.concatenate(list(matrix.chunks())), dequantize_rows(packed, scales, blocks, 100)
        )
        found = np.concatenate(list(matrix.chunks())) - weight
        measured = np.linalg.norm(found) / np.linalg.norm(weight)
        assert measured / 1.5 < matrix.rounding_loss(np.arange(48)) < 1.5 * measured


def test_zero_points_bias_and_an_old_opset_are_understood(tmp_path: Path, session) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    packed = rng.integers(0, 256, (16, 2, 16)).astype(np.uint8)
    tensors = {
        "w": packed,
        "s": rng.random(32).astype(np.float32),
        "z": rng.integers(0, 256, (16,)).astype(np.uint8),
        "b": rng.standard_normal(16).astype(np.float32),
    }
    sizes = {"N": 16, "K": 64, "bits": 4, "block_size": 32, "accuracy_level": 4}
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "w", "s", "z", "", "b"], ["y"], name="m", domain="com.microsoft", **sizes
    )
    values = [onnx.helper.make_tensor_value_info(n, 1, ["r", "t", k]) for n, k in (("x", 64), ("y", 16))]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], stored)
    opsets = [onnx.helper.make_opsetid("", 14), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    matrix = BlockMatrix.of(find_matrices(model)[0], {tensor.name: tensor for tensor in stored}, tmp_path)
    assert matrix is not None
    with WeightFile(tmp_path / "rows.data") as file:
        rows = replace_blocks(model, {"m": matrix}, {"m": ()}, file)
    onnx.save(model, tmp_path / "blocks.onnx")
    onnx.save(rows, tmp_path / "rows.onnx")
    x = rng.standard_normal((2, 3, 64)).astype(np.float32)
    expected, found = (session(tmp_path / f"{name}.onnx").run(None, {"x": x})[0] for name in ("blocks", "rows"))
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_what_cannot_have_int8_prefill_is_refused(faster: Path, exports: Exports, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelFolderError, match="has int8 prefill already"):
        add_int8_prefill(faster, out)
    with pytest.raises(ModelFolderError, match=r"has no matrix in blocks|compute in float32"):
        add_int8_prefill(BUILTIN, out)
    with pytest.raises(ModelFolderError, match="was built for cuda in float16"):
        add_int8_prefill(exports.model("int4", device="cuda"), out)
    with pytest.raises(OptionError, match="no matrix matches"):
        add_int8_prefill(exports.model("int4"), out, keep=["nothing"])
    assert not out.exists()


def test_the_command_takes_a_model_and_a_new_folder(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["export", "--from", str(published), str(out), "--keep", "*down_proj*"])
    assert done.exit_code == 0, done.output
    plans = Manifest.read(out).extra["prefill"]
    assert {plan["rows"] for name, plan in plans.items() if "down_proj" in name} == {False}
    shutil.rmtree(out)
    for wrong, said in (
        (["--from", "a"], "phi3v export --from MODEL OUT"),
        (["--from", "a", "b", "c"], "phi3v export --from MODEL OUT"),
        (["--from", "a", "b", "--precision", "int4"], "--precision is the model's own"),
        (["--from", "a", "b", "--prefill", "int4"], "adds int8 prefill"),
        (["a"], "phi3v export CHECKPOINT OUT"),
    ):
        refused = CliRunner().invoke(main, ["export", *wrong])
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
