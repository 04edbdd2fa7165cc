"""The batch's benchmark measures the same requests alone and together, and keeps what it measured."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from places import ROOT

from phi3v.bench.batch_speed import measure
from phi3v.bench.cases import Case
from phi3v.bench.record import BATCH_FORMAT, Record
from phi3v.cli.main import main
from phi3v.errors import OptionError
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

CASE = Case(336, 336, 1, 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("batch")
    return export_model(write_random_checkpoint(root / "c", tiny_dims(), seed=1), root / "m", precision="fp32")


def test_rows_give_the_tokens_and_nearly_the_logits_of_requests_run_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = [str(model), "--case", str(CASE), "--rows", "2", "--rounds", "1", "--threads", "1", "--out", str(out)]
    done = CliRunner().invoke(main, ["bench", "batch", *arguments])
    assert done.exit_code == 0, done.output
    assert "| 2 rows, 336x336:1:4 | together against alone |" in done.output
    content = Record.read(out, BATCH_FORMAT).content
    assert content["settings"] == {"case": str(CASE), "rows": 2, "threads": 1, "max_memory": None}
    for found in (content["warmup"], *content["rounds"]):
        assert found["first_difference"] == [None, None]
        assert found["alone"]["decode_tokens"] == found["together"]["decode_tokens"] == 6
    assert len(content["rounds"]) == 1
    assert len(content["prompt_tokens"]) == 2
    assert content["logits"]["largest"] < 1e-3


def test_a_new_record_has_the_keys_of_the_committed_one(model: Path) -> None:
    committed = json.loads((ROOT / "bench" / "records" / "batch-4-layers.json").read_text())
    assert measure(model, CASE, rows=2, rounds=1).content.keys() == committed.keys()


def test_rows_that_would_run_in_groups_are_refused(model: Path) -> None:
    with pytest.raises(OptionError, match="they would run in groups"):
        measure(model, CASE, rows=2, rounds=1, max_memory=1000)
