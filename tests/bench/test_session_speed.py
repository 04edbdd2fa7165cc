"""The session's benchmark compares tokens and writes what it measured."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from phi3v.cli.main import main
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch


def test_both_sides_answer_alike_and_every_answer_is_in_the_record(tmp_path: Path) -> None:
    model = export_model(write_random_checkpoint(tmp_path / "c", tiny_dims(), seed=1), tmp_path / "m", precision="fp32")
    out = tmp_path / "record.json"
    arguments = [
        "bench",
        "session",
        str(model),
        "--case",
        "336x336:1:4",
        "--questions",
        "3",
        "--rounds",
        "2",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.count("tokens identical") == 2
    record = json.loads(out.read_text())
    assert (record["format"], record["model"]["synthetic"], len(record["rounds"])) == ("phi3v-session-speed", True, 2)
    for found in record["rounds"]:
        assert [len(found[side]) for side in ("session", "fresh")] == [3, 3]
        assert found["ratio"] == found["fresh_s"] / found["session_s"]
