"""Prefill's plan: outliers are found where they are, in the model's own activations, within bounded memory."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import pytest
from PIL import Image

from phi3v.bench.reference import ReferenceModel
from phi3v.errors import CheckpointError, OptionError
from phi3v.export.calibrate import embed, plan_prefill, planned_bytes
from phi3v.export.calibration import MOST_TOKENS, default_calibration, prepare_calibration
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import CLIP, FINAL_NORM, LM_HEAD, VISION
from phi3v.export.forward_decoder import run_decoder
from phi3v.export.forward_vision import run_vision
from phi3v.export.graph import GraphWriter
from phi3v.export.matrix import Matrix
from phi3v.export.matrix_plan import MatrixPlan, describe_plans, multiply_in_blocks, multiply_rows, plan_matrix
from phi3v.export.outliers import outlier_channels
from phi3v.export.quantize import BlockQuantization
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

Array = npt.NDArray[np.float32]
BLOCKS, VISION_BLOCKS = BlockQuantization(4, 32, 4), BlockQuantization(8, 32, 4)
TEXT_ONLY = [("Why is the sky blue, and the sea too? Answer in one short sentence.", [])]


def plan(checkpoint: Checkpoint) -> dict[str, MatrixPlan]:
    return plan_prefill(checkpoint, decoder=BLOCKS, vision=VISION_BLOCKS, calibration=default_calibration())


def plan_decoder(checkpoint: Checkpoint) -> dict[str, MatrixPlan]:
    return plan_prefill(checkpoint, decoder=BLOCKS, vision=None, calibration=TEXT_ONLY)


@pytest.fixture(scope="module")
def plans(checkpoint: Checkpoint) -> dict[str, MatrixPlan]:
    return plan(checkpoint)


def multiply_exactly(matrix: Matrix, x: Array, _: npt.NDArray[np.intp]) -> Array:
    return x @ matrix.transposed(np.float32)


def compute_logits(checkpoint: Checkpoint, calibration: list[tuple[str, list[Image.Image]]]) -> list[Array]:
    inputs = prepare_calibration(checkpoint, calibration)
    features = run_vision(checkpoint, inputs.images, multiply_exactly) if inputs.images else []
    hidden = run_decoder(checkpoint, list(embed(checkpoint, inputs, features)), multiply_exactly)
    epsilon = checkpoint.dims.decoder.rms_norm_eps
    normed = [h / np.sqrt((h * h).mean(axis=1, keepdims=True) + epsilon) for h in hidden]
    return [h * checkpoint.float32(FINAL_NORM) @ checkpoint.float32(LM_HEAD).T for h in normed]


DIMS = {
    "short": tiny_dims(),
    "beyond the switch": tiny_dims(original_context=256),
    "plain rope, grouped heads": replace(
        tiny_dims(original_context=None, context=2048),
        decoder=replace(tiny_dims(original_context=None, context=2048).decoder, num_key_value_heads=2),
    ),
}


@pytest.mark.parametrize("dims", DIMS.values(), ids=DIMS.keys())
@pytest.mark.filterwarnings("ignore:This model config has set")
def test_the_streamed_model_computes_the_references_logits(tmp_path: Path, dims) -> None:  # type: ignore[no-untyped-def]
    path = write_random_checkpoint(tmp_path / "checkpoint", dims, dtype="float32")
    reference = ReferenceModel.from_checkpoint(path)
    prompts = default_calibration()
    for (prompt, images), logits in zip(prompts, compute_logits(Checkpoint.open(path), prompts), strict=True):
        expected = reference.logits(reference.preprocess(prompt, images, 1)).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_every_matrix_has_a_plan_and_nothing_else(plans: dict[str, MatrixPlan]) -> None:
    vision = [f"{part}.weight" for part in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]
    decoder = [f"{p}.weight" for p in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")]
    assert list(plans) == [
        *(f"{CLIP}encoder.layers.{layer}.{name}" for layer in range(2) for name in vision),
        *(f"{VISION}img_projection.{number}.weight" for number in (0, 2)),
        *(f"model.layers.{layer}.{name}" for layer in range(2) for name in decoder),
    ]


def test_vision_is_planned_only_when_it_is_asked_for(checkpoint: Checkpoint) -> None:
    assert all(name.startswith("model.layers.") for name in plan_decoder(checkpoint))
    with pytest.raises(OptionError, match="add an image"):
        plan_prefill(checkpoint, decoder=BLOCKS, vision=VISION_BLOCKS, calibration=TEXT_ONLY)


def test_random_weights_need_no_outliers(plans: dict[str, MatrixPlan]) -> None:
    assert {(one.rows, one.outliers) for one in plans.values()} == {(True, ())}
    assert all(one.outlier_ratio < 10 for one in plans.values())


def test_the_same_plan_comes_out_again(checkpoint: Checkpoint) -> None:
    assert plan_decoder(checkpoint) == plan_decoder(checkpoint)


WIDE = tiny_dims(hidden_size=1024, heads=8, layers=1)
"""Wide enough for a few outliers to cost the other channels more than half of what 4 bits do."""


def plan_planted(folder: Path, outliers: dict[str, float]) -> dict[str, MatrixPlan]:
    found = plan_decoder(Checkpoint.open(write_random_checkpoint(folder / "planted", WIDE, outliers=outliers)))
    return {name.removeprefix("model.layers.0.").removesuffix(".weight"): one for name, one in found.items()}


@pytest.mark.parametrize("factor", [30, 100])
def test_outliers_of_norms_are_found_where_they_were_planted(tmp_path: Path, factor: float) -> None:
    found = plan_planted(tmp_path, {"norms": factor})
    for one in (found["self_attn.qkv_proj"], found["mlp.gate_up_proj"]):
        assert set(outlier_channels(1024)) <= set(one.outliers)
        assert one.outlier_ratio > factor / 3
        assert one.loss < one.loss_in_blocks / 2
    assert found["self_attn.o_proj"].outliers == found["mlp.down_proj"].outliers == ()


@pytest.mark.parametrize("factor", [30, 100])
def test_outliers_of_projections_are_found_in_what_they_feed(tmp_path: Path, factor: float) -> None:
    found = plan_planted(tmp_path, {"projections": factor})
    assert set(outlier_channels(1024)) <= set(found["self_attn.o_proj"].outliers)
    assert set(outlier_channels(2048)) <= set(found["mlp.down_proj"].outliers)
    assert found["self_attn.qkv_proj"].outliers == ()


def test_outliers_of_the_vision_tower_are_found(tmp_path: Path) -> None:
    dims = tiny_dims()
    dims = replace(dims, clip=replace(dims.clip, hidden_size=256, intermediate_size=512, num_hidden_layers=2))
    path = write_random_checkpoint(tmp_path / "planted", dims, outliers={"norms": 100, "projections": 100})
    found = plan(Checkpoint.open(path))
    for name, width in (("self_attn.q_proj", 256), ("self_attn.out_proj", 256), ("mlp.fc1", 256), ("mlp.fc2", 512)):
        assert set(outlier_channels(width)) <= set(found[f"{CLIP}encoder.layers.0.{name}.weight"].outliers), name


def normal(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).standard_normal(shape, dtype=np.float32)


def test_an_outlier_of_a_prompts_first_token_alone_is_found() -> None:
    """The mean over the tokens hides what becomes of one."""
    x = normal(64, 16384)
    x[0, 77] = 200
    assert 77 in plan_matrix(normal(128, 16384), x, BLOCKS).outliers


def test_a_huge_first_token_does_not_choose_for_the_others() -> None:
    x = normal(64, 3072)
    x[1:, [5, 700]] *= 50
    x[0] *= 10_000
    assert {5, 700} <= set(plan_matrix(normal(128, 3072), x, BLOCKS).outliers)


def test_a_constant_outlier_does_not_hide_what_the_other_columns_lose() -> None:
    """Its output dwarfs theirs, so that their whole loss is a small share of the outputs."""
    x, weight = normal(64, 3072), normal(128, 3072)
    x[:, [5, 700]] = 1000
    exact = x @ weight.T
    error = np.linalg.norm(multiply_rows(weight, x, np.array([], dtype=np.intp)) - exact)
    assert error < 0.05 * np.linalg.norm(exact)
    assert {5, 700} <= set(plan_matrix(weight, x, BLOCKS).outliers)


def test_a_matrix_that_outliers_do_not_help_stays_in_blocks() -> None:
    sizes = np.geomspace(1, 10_000, 64).repeat(16).astype(np.float32)  # far more than 64 columns stand out
    x, weight = normal(64, 1024) * sizes, normal(128, 1024) / sizes
    one = plan_matrix(weight, x, BlockQuantization(8, 16, 4))
    assert one == MatrixPlan(False, (), one.loss_in_blocks, one.loss_in_blocks, one.outlier_ratio)


def test_an_outlier_among_dead_columns_has_a_ratio_that_a_manifest_can_hold() -> None:
    """Most columns are zero, so the median is; JSON has no infinity."""
    x = np.zeros((64, 64), dtype=np.float32)
    x[:, :8] = 1000 * normal(64, 8)
    plans = {"matrix": plan_matrix(normal(128, 64), x, BLOCKS)}
    json.dumps(describe_plans(plans), allow_nan=False)


def test_todays_loss_is_that_of_the_kernel(tmp_path: Path, checkpoint: Checkpoint) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    matrix, nothing = Matrix.whole(checkpoint, name), np.zeros(64, dtype=np.float32)
    with GraphWriter(tmp_path / "linear.onnx", np.float32) as graph:
        x = graph.input("x", ir.DataType.FLOAT, ["rows", matrix.columns])
        graph.output(graph.linear(x, "linear", matrix, nothing, BLOCKS), "y", ir.DataType.FLOAT, ["rows", 64])
    values = np.random.default_rng(1).standard_normal((40, matrix.columns), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "linear.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": values})
    found = multiply_in_blocks(checkpoint.float32(name), values, BLOCKS)
    exact = values @ checkpoint.float32(name).T
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(exact - expected)


def test_outlier_columns_are_exact() -> None:
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((8, 64), dtype=np.float32), np.zeros((3, 64), dtype=np.float32)
    x[:, [5, 40]] = random.standard_normal((3, 2)) * 1000
    np.testing.assert_allclose(multiply_rows(weight, x, np.array([5, 40])), x @ weight.T, rtol=1e-5)


def test_the_default_prompts_are_a_handful(checkpoint: Checkpoint) -> None:
    inputs = prepare_calibration(checkpoint, default_calibration())
    assert 300 <= sum(len(ids) for ids in inputs.ids) <= 800
    assert [image.plan.crops for image in inputs.images] == [2, 2]
    assert any((ids >= 0).all() for ids in inputs.ids)


def test_what_cannot_be_calibrated_on_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(OptionError, match="no prompt to calibrate on"):
        prepare_calibration(checkpoint, [])
    with pytest.raises(OptionError, match=f"allowed: {MOST_TOKENS}"):
        prepare_calibration(checkpoint, TEXT_ONLY * 100)


def test_a_token_beyond_the_vocabulary_is_refused(checkpoint: Checkpoint) -> None:
    decoder = replace(checkpoint.dims.decoder, vocab_size=8)
    with pytest.raises(CheckpointError, match=r"beyond config\.json's vocab_size 8"):
        prepare_calibration(replace(checkpoint, dims=replace(checkpoint.dims, decoder=decoder)), TEXT_ONLY)


def test_all_that_is_read_is_reported(checkpoint_dir: Path) -> None:
    checkpoint, read = Checkpoint.open(checkpoint_dir), []
    checkpoint.on_read = read.append
    plan_decoder(checkpoint)
    text = len(set(prepare_calibration(checkpoint, TEXT_ONLY).ids[0].tolist()))
    assert sum(read) == planned_bytes(checkpoint, images=False) + text * 64 * 4
    read.clear()
    plan(checkpoint)
    assert 0 < sum(read) - planned_bytes(checkpoint, images=True) < 512 * 64 * 4


@pytest.mark.parametrize(
    ("outliers", "message"),
    [({"biases": 10}, "use one of norms, projections, tokens"), ({"norms": 0.5}, "allowed: 1 or more")],
)
def test_outliers_that_cannot_be_planted_are_refused(tmp_path: Path, outliers: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        write_random_checkpoint(tmp_path / "planted", tiny_dims(), outliers=outliers)
    assert not (tmp_path / "planted").exists()


def test_outliers_are_planted_and_nothing_else_changes(tmp_path: Path) -> None:
    plain = Checkpoint.open(write_random_checkpoint(tmp_path / "plain", tiny_dims(), dtype="float32"))
    outliers = {"norms": 10, "projections": 10, "tokens": 10}
    planted = Checkpoint.open(
        write_random_checkpoint(tmp_path / "planted", tiny_dims(), dtype="float32", outliers=outliers)
    )
    larger = {}
    for name in plain.tensors:
        ratio = planted.float32(name) / plain.float32(name)
        np.testing.assert_allclose(ratio[ratio != 1], 10, rtol=1e-5)
        if changed := int((ratio != 1).sum()):
            larger[name.removeprefix("model.").replace("layers.1.", "layers.0.")] = changed
    clip = f"{CLIP.removeprefix('model.')}encoder.layers.0."
    assert larger == {
        **{f"{clip}{norm}.weight": 4 for norm in ("layer_norm1", "layer_norm2")},
        **{f"{clip}{part}.weight": 4 * 64 for part in ("self_attn.v_proj", "mlp.fc1")},
        **{f"{clip}{part}.bias": 4 for part in ("self_attn.v_proj", "mlp.fc1")},
        f"{VISION.removeprefix('model.')}img_projection.0.weight": 4 * 256,
        f"{VISION.removeprefix('model.')}img_projection.0.bias": 4,
        "embed_tokens.weight": 3 * 4,
        "layers.0.input_layernorm.weight": 4,
        "layers.0.post_attention_layernorm.weight": 4,
        "layers.0.self_attn.qkv_proj.weight": 4 * 64,
        "layers.0.mlp.gate_up_proj.weight": 4 * 64,
        "norm.weight": 4,
    }


def peak_bytes(folder: Path, layers: int) -> int:
    dims = tiny_dims(hidden_size=512, heads=8, layers=layers, context=1024, original_context=512)
    checkpoint = Checkpoint.open(write_random_checkpoint(folder / f"{layers}", dims))
    tracemalloc.start()
    try:
        plan_decoder(checkpoint)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peak_bytes(tmp_path, 1)  # imports
    assert peak_bytes(tmp_path, 12) < 1.2 * peak_bytes(tmp_path, 2)
