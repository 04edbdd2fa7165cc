"""`phi3v batch` as a person meets it: what goes in, what comes out, and what survives kills, full disks and reruns."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image
from platforms import needs_posix, needs_proc
from processes import MAIN, PATIENCE_S, PHI3V, children, started

import phi3v
from phi3v.cli.batch.inputs import make_id
from phi3v.cli.options import size

pytestmark = pytest.mark.torch

WITHOUT_PYARROW = f"import sys; sys.modules['pyarrow'] = None; {MAIN}"
QUESTION = ("--question", "What is this?")
SHORT = ("--max-new-tokens", "6", "--num-crops", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("batch") / "demo"
    done = subprocess.run([*PHI3V, "bench", "synth", str(out)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("photos"), 10)


def draw(folder: Path, count: int) -> Path:
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (30 + number % 50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.{('png', 'webp')[number % 2]}")
    return folder


@pytest.fixture
def phi3v_batch(model: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PHI3V, "batch", *map(str, arguments), *SHORT, "--model", model],
            capture_output=True, text=True, timeout=PATIENCE_S, **options,
        )  # fmt: skip

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(path: Path) -> dict[str, str]:
    found = lines(path)
    assert len({line["id"] for line in found}) == len(found), "a line is there twice"
    return {line["id"]: line["answer"] for line in found}


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_every_picture_of_a_folder_gets_the_answer_of_a_run_of_its_own(
    phi3v_batch: Run, photos: Path, model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = phi3v_batch(photos, *QUESTION, "--out", out)
    assert (done.returncode, done.stdout) == (0, "")
    assert "random weights" in done.stderr
    with phi3v.load(model) as engine:
        pictures = sorted(photos.iterdir())
        alone = {str(p): engine.generate(QUESTION[1], [p], max_new_tokens=6, num_crops=1) for p in pictures}
    assert answers(out) == {make_id([name], QUESTION[1]): result.text for name, result in alone.items()}
    line = lines(out)[0]
    assert set(line) >= {"id", "images", "question", "answer", "finish_reason", "usage", "timings", "error"}
    assert line["usage"]["completion_tokens"] == alone[line["images"][0]].usage.completion_tokens


def test_a_rerun_answers_only_what_is_missing(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out, few = tmp_path / "out.jsonl", sorted(photos.iterdir())[:3]
    phi3v_batch(*few, *QUESTION, "--out", out)
    before = out.read_bytes()
    done = phi3v_batch(photos, *QUESTION, "--out", out)
    assert "3 of 10 are already in" in done.stderr
    assert out.read_bytes().startswith(before)
    assert len(answers(out)) == 10
    whole = out.read_bytes()
    done = phi3v_batch(photos, *QUESTION, "--out", out)
    assert (done.returncode, out.read_bytes()) == (0, whole)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [(*QUESTION, "--temperature", "1"), (*QUESTION, "--stop", "x")], ids=str)
def test_another_option_for_the_same_file_is_refused(
    phi3v_batch: Run, photos: Path, tmp_path: Path, changed: tuple[str, ...]
) -> None:
    out = tmp_path / "out.jsonl"
    phi3v_batch(photos / "000.png", *QUESTION, "--out", out)
    before = out.read_bytes()
    done = phi3v_batch(photos, *changed, "--out", out)
    assert done.returncode == 1
    assert "--out" in done.stderr
    assert out.read_bytes() == before


def test_a_question_that_is_added_is_the_only_one_answered(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    phi3v_batch(photos, *QUESTION, "--out", out)
    before = out.read_bytes()
    done = phi3v_batch(photos, "--question", "Who?", *QUESTION, "--out", out)
    assert (done.returncode, "10 of 20 are already in" in done.stderr) == (0, True)
    assert out.read_bytes().startswith(before)
    assert [line["question"] for line in lines(out)].count("Who?") == 10


def test_a_limit_leaves_the_rest_for_the_next_run(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = phi3v_batch(photos, *QUESTION, "--out", out, "--limit", "3", "--shard", "1/1")
    assert (done.returncode, "7 of 10 are not answered yet" in done.stderr) == (0, True)
    done = phi3v_batch(photos, *QUESTION, "--out", out)
    assert len(answers(out)) == 10


def test_a_dry_run_tells_the_size_and_writes_nothing(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = phi3v_batch(photos, *QUESTION, "--question", "Who?", "--out", out, "--dry-run")
    assert re.match(r"20 rows, 10 images, (\d+) prompt tokens \((\d+) to read\), time unknown", done.stdout)
    assert list(tmp_path.iterdir()) == []
    phi3v_batch(photos, *QUESTION, "--question", "Who?", "--out", out, "--limit", "2")
    done = phi3v_batch(photos, *QUESTION, "--question", "Who?", "--out", out, "--dry-run")
    assert re.match(r"18 rows, 9 images, .* at most [\d.]+ s after loading, by the 2 answered before", done.stdout)


def test_another_question_in_a_table_is_refused(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"image": str(photos / "000.png"), "id": "first", "question": "What?"}
    table.write_text(json.dumps(row))
    phi3v_batch(table, "--out", out)
    table.write_text(json.dumps(row | {"question": "Who?"}))
    done = phi3v_batch(table, "--out", out)
    assert done.returncode == 1
    assert "'What?'" in done.stderr


def test_a_failure_is_a_line_and_is_tried_again_when_told(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out, late, good = tmp_path / "out.jsonl", tmp_path / "late.png", photos / "000.png"
    call = (good, late, *QUESTION, "--out", out)
    done = phi3v_batch(*call)
    assert (done.returncode, "1 of 2 failed" in done.stderr) == (3, True)
    errors = {line["images"][0]: line["error"] for line in lines(out)}
    assert errors[str(good)] is None
    assert "no such file" in errors[str(late)]
    late.write_bytes(good.read_bytes())
    assert phi3v_batch(*call).returncode == 3
    done = phi3v_batch(*call, "--retry-failed")
    assert done.returncode == 0
    assert len({line["answer"] for line in lines(out)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("torn", [b'{"id": "x', b'{"id": "\xc3', b"\0\0\0", b"{}"], ids=str)
def test_a_torn_last_line_is_repaired(phi3v_batch: Run, photos: Path, tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "out.jsonl"
    phi3v_batch(photos / "000.png", *QUESTION, "--out", out)
    whole = out.read_bytes()
    out.write_bytes(whole + torn)
    assert phi3v_batch(photos / "000.png", *QUESTION, "--out", out).returncode == 0
    assert out.read_bytes() == whole
    out.write_bytes(whole[:-20])
    assert phi3v_batch(photos / "000.png", *QUESTION, "--out", out).returncode == 0
    assert len(answers(out)) == 1


def test_a_file_of_something_else_is_refused_and_kept(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "notes.jsonl"
    out.write_text('{"id": 1, "mine": true}\nmore')
    done = phi3v_batch(photos, *QUESTION, "--out", out)
    assert done.returncode == 1
    assert "not a result of phi3v batch" in done.stderr
    assert out.read_text() == '{"id": 1, "mine": true}\nmore'


def start(*arguments: object, model: str, **options: Any) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return started(
        [*PHI3V, "batch", *SHORT, "--model", model, "--batch-size", "2", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip


def wait_for_lines(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and (out.read_bytes().count(b"\n") if out.exists() else 0) < count:
        time.sleep(0.002)


def killed_and_finished(photos: Path, out: Path, model: str, kills: int, seed: int) -> None:
    """Answer all, killed at random a number of times."""
    chance, count, done = random.Random(seed), len(list(photos.iterdir())), 0
    for _ in range(kills):
        with start(photos, *QUESTION, "--out", out, model=model) as process:
            wait_for_lines(out, done + chance.randint(1, count // (kills + 1)), process)
            time.sleep(chance.uniform(0, 0.02))
            assert process.poll() is None, "it was done before it could be killed"
            process.kill()
        assert out.read_bytes().count(b"\n") < count
        done = out.read_bytes().count(b"\n")
    with start(photos, *QUESTION, "--out", out, model=model) as process:
        assert process.wait(timeout=PATIENCE_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 1000])
def test_pictures_killed_three_times_are_right_lines_none_twice(
    phi3v_batch: Run, model: str, tmp_path: Path, count: int
) -> None:
    (tmp_path / "photos").mkdir()
    photos, whole, out = draw(tmp_path / "photos", count), tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    phi3v_batch(photos, *QUESTION, "--out", whole)
    killed_and_finished(photos, out, model, kills=3, seed=count)
    assert answers(out) == answers(whole)
    assert len(answers(out)) == count


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_leaves_no_process_behind(photos: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with start(photos, *QUESTION, "--out", out, "--max-new-tokens", "2000", model=model) as process:
        wait_for_lines(out, 1, process)
        engines = children(process.pid)
        process.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in engines) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engines
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)


@needs_posix
@pytest.mark.slow
def test_a_second_process_on_the_same_file_is_refused(
    phi3v_batch: Run, photos: Path, model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    with start(photos, *QUESTION, "--out", out, model=model) as first:
        wait_for_lines(out, 1, first)
        first.send_signal(signal.SIGSTOP)  # it is not done before the second begins
        try:
            second = phi3v_batch(photos, *QUESTION, "--out", out)
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=PATIENCE_S) == 0
    assert second.returncode == 1
    assert "another process is writing" in second.stderr
    assert len(answers(out)) == 10


@needs_posix
@pytest.mark.slow
def test_ctrl_c_is_status_130_and_the_rerun_goes_on(phi3v_batch: Run, photos: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    journal = tmp_path / "out.csv.journal.jsonl"
    with start(photos, *QUESTION, "--out", out, model=model, start_new_session=True) as process:
        wait_for_lines(journal, 1, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the job
        assert process.wait(timeout=PATIENCE_S) == 130
    first = len(answers(journal))
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == first < 10
    assert phi3v_batch(photos, *QUESTION, "--out", out).returncode == 0
    assert len(answers(journal)) == 10


@needs_proc
@pytest.mark.slow
def test_a_dead_engine_is_replaced_and_costs_no_answer(photos: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [*PHI3V, "batch", str(photos), *QUESTION, "--out", str(out), *SHORT, "--model", model]
    with started([*command, "--batch-size", "1"], stderr=subprocess.PIPE, text=True) as process:
        wait_for_lines(out, 1, process)
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(timeout=PATIENCE_S) == 0
    assert "the process that holds the model ended 1 time" in said
    assert "Traceback" not in said
    assert len(answers(out)) == 10


def small_files(limit: int) -> Callable[[], None]:
    """A process in which no file grows beyond `limit` bytes: what a full disk looks like."""

    import resource  # of POSIX alone

    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return apply


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_full_disk_is_a_message_and_corrupts_nothing(
    phi3v_batch: Run, photos: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    journal = out if suffix == "jsonl" else tmp_path / "out.csv.journal.jsonl"
    done = phi3v_batch(photos, *QUESTION, "--out", out, preexec_fn=small_files(2000))
    assert done.returncode == 1
    assert "are safe" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < len(answers(journal)) < 10
    assert phi3v_batch(photos, *QUESTION, "--out", out).returncode == 0
    assert len(answers(journal)) == 10
    assert not list(tmp_path.glob(".*partial"))


def test_csv_is_a_table_in_the_order_of_the_inputs(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    names = [str(photos / f"{n:03}.{s}") for n, s in ((4, "png"), (1, "webp"), (2, "png"))]
    assert phi3v_batch(*names, tmp_path / "absent.png", *QUESTION, "--out", out).returncode == 3
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["images"]) for row in rows] == [[name] for name in (*names, str(tmp_path / "absent.png"))]
    assert rows[0]["answer"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]


def test_parquet_without_pyarrow_names_the_extra(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-c", WITHOUT_PYARROW, "batch", str(photos), *QUESTION, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "[parquet]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_the_lines_of_its_journal(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    assert phi3v_batch(photos, *QUESTION, "--out", out).returncode == 0
    rows = parquet.read_table(out).to_pylist()
    assert {row["id"]: row["answer"] for row in rows} == answers(tmp_path / "out.parquet.journal.jsonl")
    assert rows[0]["images"] == [str(photos / "000.png")]


def test_an_unknown_suffix_is_refused_before_anything_is_written(
    phi3v_batch: Run, photos: Path, tmp_path: Path
) -> None:
    done = phi3v_batch(photos, *QUESTION, "--out", tmp_path / "out.xlsx")
    assert done.returncode == 1
    assert ".jsonl, .csv, .parquet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_odd_file_name_survives(phi3v_batch: Run, photos: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.png"))
    odd.write_bytes((photos / "000.png").read_bytes())
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        assert phi3v_batch(odd, *QUESTION, "--out", out).returncode == 0
    assert [line["images"] for line in lines(out)] == [[str(odd)]]


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 10**9), ("1.5GiB", 3 << 29), ("800 mb", 8 * 10**8), ("12", 12)]
)
def test_sizes_read_as_people_write_them(text: str, count: int) -> None:
    assert size(text) == count
    with pytest.raises(click.BadParameter, match="6GB"):
        size("lots")


@pytest.mark.parametrize("name", ["pages.csv", "pages.jsonl"])
def test_a_table_of_somebody_elses_is_never_written_over(
    phi3v_batch: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path, name: str
) -> None:
    table = tmp_path / name
    picture = str(next(photos.glob("*.png")))
    table.write_text(f"image\n{picture}\n" if name.endswith("csv") else json.dumps({"image": picture}))
    before = table.read_bytes()
    done = phi3v_batch(table, *QUESTION, "--out", table)
    assert done.returncode != 0
    assert "give --out another file" in done.stderr
    assert table.read_bytes() == before


@pytest.mark.parametrize("row", ['{"images": 5}', '{"images": {"a.png": 1}}', '{"image": ["a.png"]}'])
def test_a_row_whose_pictures_are_no_paths_is_named(
    phi3v_batch: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, row: str
) -> None:
    (tmp_path / "t.jsonl").write_text(row + "\n")
    done = phi3v_batch(tmp_path / "t.jsonl", *QUESTION, "--out", tmp_path / "o.jsonl")
    assert done.returncode == 2
    assert "allowed:" in done.stderr
