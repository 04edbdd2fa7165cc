"""How time and memory grow: exact lengths, what does not fit, and the plot."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from phi3v.bench import growth
from phi3v.bench.growth import draw, format_table, make_prompt, measure
from phi3v.bench.record import GROWTH_FORMAT, Record
from phi3v.cli.bench.growth import growth as command
from phi3v.errors import OptionError
from phi3v.genai.backend import GenaiBackend
from phi3v.models.folder import BUILTIN, ModelDir


def test_every_point_is_measured_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    measure(BUILTIN, [(1, 40), (3, 20)], new_tokens=3, rounds=2, out=out)
    record = Record.read(out, GROWTH_FORMAT)
    points = [(s["rows"], s["tokens"], s["round"]) for s in record.content["samples"]]
    assert points == [(1, 40, 1), (1, 40, 2), (3, 20, 1), (3, 20, 2)]
    assert all(sample["prefill_s"] > 0 and sample["decode_tps"] > 0 for sample in record.content["samples"])
    assert format_table(record).count("| auto |") == 2


def test_a_prompt_has_the_exact_length() -> None:
    backend = GenaiBackend(ModelDir.open(BUILTIN), "cpu")
    assert len(make_prompt(backend, 321)) == 321
    backend.close()


def test_a_point_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "available_memory", lambda: 1000)
    record = measure(BUILTIN, [(2, 20)], new_tokens=2)
    assert record.content["samples"] == []
    assert record.content["skipped"][0]["free_bytes"] == 1000
    assert "Left out: 2 rows of 20 with prefill auto" in format_table(record)


@pytest.mark.parametrize("point", [(0, 20), (1, 1), (1, 4095)])
def test_a_point_beyond_the_context_is_refused(point: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="2 to 4096 tokens together"):
        measure(BUILTIN, [point], new_tokens=4)


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = measure(BUILTIN, [(1, 20), (1, 30), (2, 20)], new_tokens=2)
    draw(record, tmp_path / "plots" / "growth.svg")
    assert (tmp_path / "plots" / "growth.svg").read_text().rstrip().endswith("</svg>")


def test_the_command_prints_a_table_and_writes_the_record(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    done = CliRunner().invoke(command, ["nano", "--point", "1x20", "--new-tokens", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "| auto | 1 | 20 |" in done.output
    assert json.loads(out.read_text())["format"] == "phi3v-growth"
    refused = CliRunner().invoke(command, ["nano", "--point", "20"])
    assert "is not ROWSxTOKENS" in refused.output
