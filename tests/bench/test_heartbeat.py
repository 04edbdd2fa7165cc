"""The heartbeat tool: the structure of its record; how regular beats are is for a quiet machine to say."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from phi3v.cli.main import main


@pytest.mark.slow
def test_a_record_holds_beats_and_both_questions(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    command = ["bench", "heartbeat", "nano", "--case", "300x300:1:4", "--rounds", "1", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    [found] = record["rounds"]
    assert record["differing"] == []
    assert found["beats"] > 1
    assert found["first"]["cached_tokens"] == 0
    assert found["second"]["cached_tokens"] >= found["second"]["image_tokens"] > 0
