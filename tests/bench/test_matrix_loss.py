"""`bench parity --matrices`: what each matrix loses by itself, and which inputs have outliers."""

from pathlib import Path

import pytest
from PIL import Image

from phi3v.bench.matrix_loss import MatrixLoss, measure_matrices
from phi3v.errors import OptionError
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

PROMPT = "What is shown?"
IMAGE = Image.new("RGB", (300, 200), "navy")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "checkpoint"
    return write_random_checkpoint(path, tiny_dims(), outliers={"norms": 100})


def measure(checkpoint: Path, folder: Path, **options: str | tuple[str, ...]) -> dict[str, MatrixLoss]:
    export_model(checkpoint, folder, **options)  # type: ignore[arg-type]
    return {loss.name: loss for loss in measure_matrices(checkpoint, folder, PROMPT, [IMAGE])}


def test_every_quantised_matrix_is_listed_with_the_way_it_is_multiplied(planted: Path, tmp_path: Path) -> None:
    kept = "*.o_proj.weight"
    blocks = measure(planted, tmp_path / "int4", prefill="int4")
    rows = measure(planted, tmp_path / "int8", prefill="int8", keep=(kept,))
    assert list(blocks) == list(rows)
    assert {loss.kernel for loss in blocks.values()} == {"blocks"}
    assert all(loss.kernel == "blocks" for name, loss in rows.items() if name.endswith("o_proj.weight"))
    assert "int8" in {loss.kernel for loss in rows.values()}


def test_a_matrix_in_int8_is_nearer_than_in_four_bits(planted: Path, tmp_path: Path) -> None:
    blocks = measure(planted, tmp_path / "int4", prefill="int4")
    rows = measure(planted, tmp_path / "int8", prefill="int8")
    name = "model.layers.0.mlp.down_proj.weight"
    assert (rows[name].kernel, blocks[name].kernel) == ("int8", "blocks")
    assert blocks[name].cosine < rows[name].cosine <= 1.0
    assert rows[name].largest_error < blocks[name].largest_error


def test_planted_outliers_show_in_the_ratio_of_what_they_feed(planted: Path, tmp_path: Path) -> None:
    found = measure(planted, tmp_path / "int4", prefill="int4")
    fed_by_a_norm = found["model.layers.0.self_attn.qkv_proj.weight"].outlier_ratio
    assert fed_by_a_norm > 10 * found["model.layers.0.self_attn.o_proj.weight"].outlier_ratio


def test_a_folder_that_holds_nothing_quantised_is_refused(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no quantised matrices"):
        measure(planted, tmp_path / "fp32", precision="fp32")
