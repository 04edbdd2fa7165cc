"""Records of every format are begun, kept and read in one way."""

import json
from pathlib import Path

import pytest
from places import ROOT

from phi3v.bench.record import (
    BATCH_FORMAT,
    GROWTH_FORMAT,
    HEARTBEAT_FORMAT,
    LOAD_FORMAT,
    RAY_FORMAT,
    SESSION_FORMAT,
    SUBJECTS_FORMAT,
    Format,
    Record,
)
from phi3v.errors import OptionError

FORMATS = (SUBJECTS_FORMAT, SESSION_FORMAT, BATCH_FORMAT, GROWTH_FORMAT, LOAD_FORMAT, HEARTBEAT_FORMAT, RAY_FORMAT)
COMMON = {"format", "version", "source", "machine", "packages"}
COMMITTED = sorted((ROOT / "bench" / "records").glob("*.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "phi3v.json").write_text('{"synthetic": true}')
    return path


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_record_is_readable(path: Path) -> None:
    kind = next(kind for kind in FORMATS if kind.name == json.loads(path.read_text())["format"])
    record = Record.read(path, kind)
    assert record.content.keys() >= COMMON | {kind.time_key, "models" if kind is SUBJECTS_FORMAT else "model"}


def test_a_new_record_has_the_fields_of_the_committed_ones(folder: Path) -> None:
    for path in COMMITTED:
        kind = next(kind for kind in FORMATS if kind.name == json.loads(path.read_text())["format"])
        new = Record.begin(kind, {"ours": folder} if kind is SUBJECTS_FORMAT else folder)
        assert new.content.keys() <= Record.read(path, kind).content.keys()  # which hold what was measured besides


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_record_reads_back_as_it_was_begun(kind: Format, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "record.json"
    record = Record.begin(kind, folder, out=out, rounds=[])
    record.add("rounds", {"seconds": 1.5})
    record.set("logits", 2)
    assert Record.read(out, kind).content == record.content
    assert (record.content["rounds"], record.content["logits"]) == ([{"seconds": 1.5}], 2)
    assert record.content["model"]["synthetic"] is True


def test_what_was_measured_is_in_the_file_before_the_record_is_complete(folder: Path, tmp_path: Path) -> None:
    record = Record.begin(SUBJECTS_FORMAT, folder, out=tmp_path / "r.json", samples=[])
    assert not (tmp_path / "r.json").exists()
    for number in (1, 2):
        record.add("samples", number)
        assert len(Record.read(tmp_path / "r.json").content["samples"]) == number


def test_several_models_are_described_by_label(folder: Path) -> None:
    content = Record.begin(SUBJECTS_FORMAT, {"a": folder, "b": folder}).content
    assert [content["models"][label]["name"] for label in ("a", "b")] == ["model", "model"]
    assert "model" not in content


def test_a_record_of_another_format_is_refused_and_both_are_named(folder: Path, tmp_path: Path) -> None:
    Record.begin(SESSION_FORMAT, folder).write(tmp_path / "r.json")
    with pytest.raises(OptionError, match="is phi3v-session-speed version 1; this reads phi3v-bench 1"):
        Record.read(tmp_path / "r.json")
