"""The load generator: the structure of its record; how fast a server is, is for a quiet machine to say."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from phi3v.cli.main import main


@pytest.mark.slow
def test_a_record_holds_both_phases_and_no_wrong_answer(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    command = ["bench", "load", "nano", "--clients", "4", "--seconds", "1", "--new-tokens", "4", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    one, many = json.loads(out.read_text())["phases"]
    assert (one["clients"], many["clients"]) == (1, 4)
    for phase in (one, many):
        assert phase["wrong"] == []
        assert set(phase["statuses"]) == {"200"}
        assert phase["answered"] >= 1
        assert phase["ttft_s"]["p95"] >= phase["ttft_s"]["median"] > 0
