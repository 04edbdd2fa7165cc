"""A whole job: mixed files, typed tables, three kills, a question that is added, and memory that stays flat.

PHI3V_JOB_FILES and PHI3V_JOB_ROWS say how much; CI takes less than a person who wants to know.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from places import ROOT
from processes import PATIENCE_S, PHI3V, children, started

pytestmark = pytest.mark.slow

FILES = int(os.environ.get("PHI3V_JOB_FILES", "40"))
ROWS = int(os.environ.get("PHI3V_JOB_ROWS", "600"))
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 12},
        "year": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2100}, {"type": "null"}]},
        "price": {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
    },
    "required": ["title", "year", "price", "tags"],
    "additionalProperties": False,
}
WHAT, NEW = "What is this?", "Title and price?"
OPTIONS = ("--model", "nano", "--device", "cpu", "--num-crops", "1", "--max-new-tokens", "120")


def png(width: int = 60, height: int = 40) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (width, height), "red").save(file, "PNG")
        return file.getvalue()


def zipped() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.txt", "a")
        return file.getvalue()


def jpeg() -> bytes:
    with io.BytesIO() as file:
        Image.effect_noise((80, 80), 90).save(file, "JPEG")
        return file.getvalue()


JUNK: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"This is no image.",
    "page.png": lambda: b"<!doctype html><html><body>404</body></html>",
    "cut.png": lambda: png()[:60],
    "cut.jpg": lambda: jpeg()[:200],
    "archive.png": zipped,
    "data.webp": lambda: b'{"image": 1}',
    "drawing.png": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "bomb.png": lambda: png()[:16] + (1 << 20).to_bytes(4) + (1 << 20).to_bytes(4) + png()[24:],
    "report.tif": lambda: b"%PDF-1.4\n%%EOF",
    "noise.bmp": lambda: bytes(range(256)) * 4,
    "broken.tiff": lambda: b"II*\0" + b"\xff" * 60,
}


def draw_files(folder: Path, count: int) -> None:
    """Covers, charts and drawings of different sizes, junk of twelve kinds, and files that are passed over."""
    folder.mkdir()
    for name, content in JUNK.items():
        (folder / name).write_bytes(content())
    pictures = [Image.open(ROOT / "examples" / f"{name}.png").convert("RGB") for name in ("chart", "cover", "before")]
    for number in range(count - len(JUNK)):
        picture = pictures[number % 3].resize((300 + number % 40, 300 + number // 40))
        ImageDraw.Draw(picture).point((number % 200, 1), "red")
        picture.save(folder / f"{number:04}.png", compress_level=1)
    (folder / "notes.txt").touch()
    (folder / "film.mp4").touch()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PHI3V, *map(str, arguments)], capture_output=True, text=True, timeout=2 * PATIENCE_S)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def as_answered(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["answer"], line["finish_reason"], line["error"], line["note"]


def kill_three_times(command: list[str], out: Path, rows: int) -> None:
    for part in (1, 2, 3):
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with started(command, **quiet) as process:
            deadline = time.monotonic() + PATIENCE_S
            while (out.read_bytes().count(b"\n") if out.exists() else 0) < rows * part // 4:
                assert process.poll() is None, "it was done before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()


def test_a_job_of_mixed_files_becomes_exact_tables_whatever_interrupts_it(tmp_path: Path) -> None:
    pandas, parquet = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    import pyarrow

    files = tmp_path / "files"
    draw_files(files, FILES)
    names = sorted(file.name for file in files.iterdir() if file.suffix not in (".txt", ".mp4"))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    table = tmp_path / "in.csv"
    table.write_text("image;note;title\n" + "".join(f"files/{name};n{n};own\n" for n, name in enumerate(names)))
    out = tmp_path / "out.jsonl"
    job = ("batch", table, *OPTIONS, "--json-schema", tmp_path / "schema.json", "--question", WHAT)
    command = [*PHI3V, *map(str, job), "--out", str(out)]
    kill_three_times(command, out, FILES)
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 3, done.stderr
    assert f"{len(JUNK)} of {FILES} failed" in done.stderr
    undisturbed = tmp_path / "undisturbed.jsonl"
    assert run(*job, "--out", undisturbed).returncode == 3
    found = {line["id"]: as_answered(line) for line in lines(out)}
    assert len(lines(out)) == len(found) == FILES
    assert found == {line["id"]: as_answered(line) for line in lines(undisturbed)}

    before = out.read_bytes()
    assert run(*job, "--question", NEW, "--out", out).returncode == 3
    assert out.read_bytes().startswith(before)
    asked = [(line["images"][0], line["question"]) for line in lines(out)]
    assert sorted(asked) == sorted((str(files / name), question) for name in names for question in (WHAT, NEW))
    for line in lines(out):
        answer = line["answer"]
        assert (answer is None) == (line["error"] is not None) == (Path(line["images"][0]).name in JUNK)
        if answer is not None:
            assert list(answer) == ["title", "year", "price", "tags"]
            assert len(answer["title"]) <= 12
            assert set(answer["tags"]) <= {"red", "blue"}

    for suffix in ("csv", "parquet"):
        target = tmp_path / f"out.{suffix}"
        shutil.copy(out, f"{target}.journal.jsonl")
        assert run(*job, "--question", NEW, "--out", target).returncode == 3
    read = parquet.read_table(tmp_path / "out.parquet")
    types = {name: read.schema.field(name).type for name in ("title", "year", "price", "tags", "note", "input_title")}
    text = pyarrow.string()
    assert types == {
        "title": text, "year": pyarrow.int64(), "price": pyarrow.float64(), "tags": pyarrow.list_(text),
        "note": text, "input_title": text,
    }  # fmt: skip
    rows = read.to_pylist()
    wanted = [(str(files / name), question) for name in names for question in (WHAT, NEW)]
    assert [(row["images"][0], row["question"]) for row in rows] == wanted
    by_id = {line["id"]: line for line in lines(out)}
    for row in rows:
        line = by_id[row["id"]]
        fields = {name: row[name] for name in ("title", "year", "price", "tags")}
        assert fields == (line["answer"] or dict.fromkeys(fields))
        assert (row["note"], row["input_title"], row["error"]) == (line["note"], "own", line["error"])
    frame = pandas.read_csv(tmp_path / "out.csv")
    assert frame["price"].dtype == float
    assert frame["id"].tolist() == [row["id"] for row in rows]
    tags = [None if isinstance(cell, float) else json.loads(cell) for cell in frame["tags"]]
    assert tags == [row["tags"] for row in rows]


def test_choices_are_a_column_of_text(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    draw_files(tmp_path / "files", 20)
    out = tmp_path / "out.csv"
    done = run("batch", tmp_path / "files", *OPTIONS, "--question", WHAT, "--choices", "book,chart", "--out", out)
    assert done.returncode == 3
    assert "passed over 2 files that are not images: .mp4 1, .txt 1" in done.stderr
    answers = pandas.read_csv(out)["answer"]
    assert set(answers.dropna()) <= {"book", "chart"}
    assert answers.isna().sum() == len(JUNK)


@pytest.mark.torch
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """The command and the process that holds the model, from a quarter of the rows to three quarters."""
    made = run("bench", "synth", tmp_path / "demo")
    assert made.returncode == 0, made.stderr
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "a.png")
    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"image": "a.png", "question": "?"}
    with table.open("w") as file:
        for number in range(ROWS):
            (tmp_path / f"{number}.png").hardlink_to(tmp_path / "a.png")
            file.write(json.dumps(row | {"image": f"{number}.png", "id": number}) + "\n")
    call = ("batch", table, "--model", made.stdout.strip(), "--num-crops", "1", "--max-new-tokens", "2", "--out", out)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    seen: list[tuple[int, list[float]]] = []
    with started([*PHI3V, *map(str, call)], **quiet) as process:
        deadline = time.monotonic() + 4 * PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < deadline
            done = out.read_bytes().count(b"\n") if out.exists() else 0
            if len(seen) < 3 and done >= ROWS // 4 * (len(seen) + 1):
                seen.append((done, [resident_mb(pid) for pid in (process.pid, *children(process.pid))]))
            time.sleep(0.05)
    assert process.returncode == 0
    print(seen)
    (_, first), *_, (_, last) = seen
    for before, after in zip(first, last, strict=True):
        assert after < 1.05 * before + 5, seen


def resident_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
