"""A run measures real subjects in real processes; its record and reports hold what was measured."""

import os
import subprocess
from pathlib import Path

import pytest
from processes import PHI3V

from phi3v.bench.cases import Case, make_jpeg
from phi3v.bench.extras import require_extra
from phi3v.bench.record import METRICS, Record
from phi3v.bench.report import render_html, render_markdown
from phi3v.bench.run import SubjectSpec, run
from phi3v.errors import InferenceError, MissingDependencyError, OptionError
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

SMALL = Case(200, 120, 1, 4)
ALL_CROPS = Case(200, 120, 16, 4)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    export_model(write_random_checkpoint(root / "checkpoint", tiny_dims(context=4096)), root / "model")
    return root


@pytest.fixture(scope="module")
def record(demo: Path) -> Record:
    subjects = [SubjectSpec(name, name, demo / "model") for name in ("ours", "genai")]
    subjects.append(SubjectSpec("torch-fp32", "torch-fp32", demo / "checkpoint"))
    return run(subjects, [SMALL, ALL_CROPS], rounds=2, resident=True)


def test_every_subject_takes_its_turn_in_every_round(record: Record) -> None:
    assert set(record.values("ours", str(SMALL), "ttft_s")) == {1, 2}
    assert set(record.values("torch-fp32", str(ALL_CROPS), "tpot_s")) == {1, 2}
    assert set(record.values("genai", str(ALL_CROPS), "tpot_s")) == {1, 2}
    assert record.values("genai", str(SMALL), "tpot_s") == {}


def test_answers_have_the_full_length_and_are_the_same_every_round(record: Record) -> None:
    for subject in record.subjects:
        own = [s for s in record.content["samples"] if s["subject"] == subject and s["case"] == str(ALL_CROPS)]
        assert {s["decode_tokens"] for s in own} == {3}
        assert len({s["tokens_digest"] for s in own}) == 1


def test_the_record_stands_alone(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json").content == record.content
    assert record.content["models"]["ours"]["synthetic"] is True
    assert {"cpu", "cpus", "ram_bytes", "gpus"} <= set(record.content["machine"])
    assert "onnxruntime" in record.content["packages"]
    measured = {metric for sample in record.content["samples"] for metric in sample if sample[metric] is not None}
    assert set(METRICS) - measured <= {"gpu_used_bytes"}


def test_every_subject_has_one_cold_start(record: Record) -> None:
    for subject in record.subjects:
        starts = [
            s["cold_start_s"] for s in record.content["samples"] if s["subject"] == subject and "cold_start_s" in s
        ]
        assert len(starts) == 1
        assert starts[0] > 0


def test_the_reports_hold_every_subject_and_the_page_needs_nothing_else(record: Record) -> None:
    page, text = render_html(record), render_markdown(record)
    for subject in record.subjects:
        assert subject in page
        assert subject in text
    assert "<svg" in page
    assert "src=" not in page
    assert "random weights" in text


def test_fresh_processes_measure_loading_every_round(demo: Path) -> None:
    fresh = run([SubjectSpec("ours", "ours", demo / "model")], [SMALL], rounds=2, resident=False)
    assert sum("cold_start_s" in sample for sample in fresh.content["samples"]) == 2
    assert set(fresh.values("ours", str(SMALL), "total_s")) == {1, 2}


def test_a_worker_that_fails_says_why(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"torch-fp32 failed: .*config\.json"):
        run([SubjectSpec("torch-fp32", "torch-fp32", tmp_path)], [SMALL], rounds=1)


@pytest.mark.parametrize("resident", [True, False])
def test_a_run_that_keeps_going_notes_what_failed_and_measures_the_rest(
    demo: Path, tmp_path: Path, resident: bool
) -> None:
    subjects = [SubjectSpec("torch-fp32", "torch-fp32", tmp_path), SubjectSpec("ours", "ours", demo / "model")]
    out = tmp_path / "record.json"
    kept = run(subjects, [SMALL], rounds=1, resident=resident, keep_going=True, out=out)
    assert [failure["subject"] for failure in kept.content["failures"]] == ["torch-fp32"]
    assert set(kept.values("ours", str(SMALL), "total_s")) == {1}
    assert Record.read(out).content == kept.content
    assert "- torch-fp32 failed: " in render_markdown(kept)


def test_a_run_whose_time_is_up_begins_no_answer(demo: Path) -> None:
    spec = SubjectSpec("ours", "ours", demo / "model")
    assert run([spec], [SMALL], rounds=3, resident=False, minutes=0).content["samples"] == []
    resident = run([spec], [SMALL], rounds=3, resident=True, minutes=0).content["samples"]
    assert [sample["warmup"] for sample in resident] == [True]


def test_a_case_genai_cannot_do_is_refused(demo: Path) -> None:
    with pytest.raises(OptionError, match="16 crops"):
        run([SubjectSpec("genai", "genai", demo / "model")], [SMALL], rounds=1)


def test_a_case_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="twice"):
        run([SubjectSpec("ours", "ours", tmp_path)], [SMALL, Case.parse(str(SMALL))], rounds=1)


def test_a_heavy_package_that_is_missing_is_named_before_anything_runs() -> None:
    require_extra("bench", "json")
    with pytest.raises(MissingDependencyError, match=r"needs nowhere_to_be_found; run: pip install .*\[bench\]'"):
        require_extra("bench", "json", "nowhere_to_be_found")


@pytest.mark.parametrize(
    "text", ["", "1344", "0x10:1:2", "10x10:17:2", "10x10:1:1", "10x10:1", "70000x1:1:2", "20000x20000:1:2"]
)
def test_a_case_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="such as 1344x1344:16:64"):
        Case.parse(text)


def test_a_case_reads_back_what_it_prints() -> None:
    assert Case.parse(str(ALL_CROPS)) == ALL_CROPS


def test_the_image_is_the_same_everywhere() -> None:
    assert make_jpeg(64, 48) == make_jpeg(64, 48)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "phi3v-bench", "version": 2}', "[]"])
def test_a_file_that_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(OptionError):
        Record.read(tmp_path / "r.json")


def test_compare_exits_with_1_on_a_regression(record: Record, tmp_path: Path) -> None:
    one = next(s for s in record.content["samples"] if s["subject"] == "ours" and not s["warmup"])
    for name, seconds in (("old", 1.0), ("new", 1.2)):
        samples = [one | {"round": number, "ttft_s": seconds} for number in range(1, 7)]
        Record(record.content | {"samples": samples}).write(tmp_path / f"{name}.json")
    command = [*PHI3V, "bench", "compare"]
    files = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    worse = subprocess.run([*command, *files], capture_output=True, text=True, env=os.environ)
    assert worse.returncode == 1
    assert "worse" in worse.stdout
    assert subprocess.run([*command, files[0], files[0]], capture_output=True, env=os.environ).returncode == 0
