"""`phi3v batch --ray` on two nodes of one machine: whatever dies, every row is there once and is the single machine's.

PHI3V_RAY_ROWS says how many images; CI takes few.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from places import ROOT
from processes import PATIENCE_S, PHI3V, started

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pyarrow = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("pyarrow.dataset")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own making
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

ROWS = int(os.environ.get("PHI3V_RAY_ROWS", "120"))
LIMIT_S = PATIENCE_S * max(1.0, ROWS / 300)
QUESTION = "Help me get the title and author information of this book?"
ASK = ("--question", QUESTION, "--model", "nano", "--device", "cpu", "--num-crops", "1", "--max-new-tokens", "40")
WORKER = b"ray::MapWorker(MapBatches(Phi3Vision"


class Nodes:
    """Two nodes with two CPUs each: Ray's own tasks need one beside a worker's."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        size: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 10**8}
        self._size = size
        self.cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        self.second = self.cluster.add_node(**size)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def lose_one(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    pictures = [Image.open(ROOT / "examples" / f"{name}.png").convert("RGB") for name in ("chart", "cover", "before")]
    for number in range(ROWS):
        picture = pictures[number % 3]
        side = 300 + number % 37
        picture.resize((side, side)).save(folder / f"{number:05}.png", compress_level=1)
    (folder / "bad.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The answers of one machine, by id."""
    out = tmp_path_factory.mktemp("one") / "out.jsonl"
    done = run("batch", photos, *ASK, "--out", out)
    assert done.returncode == 3, done.stderr
    return {line["id"]: line["answer"] for line in map(json.loads, out.read_text().splitlines())}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PHI3V, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S)


def rows_of(out: Path) -> list[dict[str, Any]]:
    if not any(out.glob("*.parquet")):
        return []
    rows: list[dict[str, Any]] = dataset.dataset(out, format="parquet").to_table().to_pylist()
    return rows


def count_written(out: Path) -> int:
    """Rows of the files that are whole: Ray writes them in place."""
    found = 0
    for file in out.glob("*.parquet"):
        with contextlib.suppress(OSError, pyarrow.ArrowInvalid):
            found += parquet.read_metadata(file).num_rows
    return found


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while count_written(out) < count:
        assert process.poll() is None, "the job ended before it could be disturbed"
        assert time.monotonic() < deadline, "no more rows are written"
        time.sleep(0.2)


def workers() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(WORKER):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_rows_are_there_once_whatever_dies(
    nodes: Nodes, photos: Path, expected: dict[str, str | None], tmp_path: Path
) -> None:
    out = tmp_path / "answers"
    command = [*PHI3V, "batch", str(photos), *ASK, "--out", str(out), "--ray", nodes.address, "--batch-size", "4"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with started(command, **quiet) as driver:
        wait_for_rows(out, 1, driver)
        os.kill(workers()[0], signal.SIGKILL)
        wait_for_rows(out, ROWS // 3, driver)
        nodes.lose_one()
        wait_for_rows(out, ROWS // 2, driver)
        os.killpg(driver.pid, signal.SIGKILL)
    assert count_written(out) < ROWS
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 3, done.stderr[-2000:]
    rows = rows_of(out)
    assert len(rows) == ROWS + 1
    assert {row["id"]: row["answer"] for row in rows} == expected
    assert [row["error"] for row in rows if row["error"]] != []


def test_other_options_for_the_same_folder_are_refused(nodes: Nodes, photos: Path, tmp_path: Path) -> None:
    one = photos / "00000.png"
    call = ("batch", one, *ASK, "--out", tmp_path / "out", "--ray", nodes.address, "--workers", "1")
    assert run(*call).returncode == 0
    again = run(*call, "--temperature", "1")
    assert again.returncode == 1
    assert "give --out another folder" in again.stderr


def test_another_question_under_the_same_id_is_refused(nodes: Nodes, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text(f"id,image\nx,{photos / '00000.png'}\n")
    call = ("batch", table, *ASK[2:], "--out", tmp_path / "out", "--ray", nodes.address, "--workers", "1")
    assert run(*call, "--question", "What?").returncode == 0
    again = run(*call, "--question", "Who?")
    assert again.returncode == 1
    assert "answers 'What?'" in again.stderr


def test_archives_and_tables_that_hold_their_images_are_read(
    nodes: Nodes, photos: Path, expected: dict[str, str | None], tmp_path: Path
) -> None:
    names = sorted(photos.glob("*.png"))[:6]
    answers = [expected[name] for name in sorted(expected) if name.split(":")[0] in map(str, names)]
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for name in names:
            archive.add(name, arcname=name.name)
    table = {"id": [name.stem for name in names], "image": [name.read_bytes() for name in names], "note": ["n"] * 6}
    parquet.write_table(pyarrow.table(table), tmp_path / "photos.parquet")
    for source, key in (("photos.tar", "__key__"), ("photos.parquet", "id")):
        out = tmp_path / f"{source}.out"
        done = run("batch", tmp_path / source, *ASK, "--out", out, "--ray", nodes.address, "--workers", "1")
        assert done.returncode == 0, done.stderr[-2000:]
        rows = sorted(rows_of(out), key=lambda row: row[key])
        assert [row["answer"] for row in rows] == answers
        assert "image" not in rows[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit", "2"), "do not go with --ray"),
        (("--gpus-per-worker", "1"), "the cluster has 0"),
        (("--shard", "3/2"), "K/N"),
        (("--device", "cuda"), "cuda"),
    ],
)
def test_what_does_not_go_is_said(nodes: Nodes, photos: Path, tmp_path: Path, arguments: Any, said: str) -> None:
    done = run("batch", photos, *ASK, "--out", tmp_path / "out", "--ray", nodes.address, *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_a_job_goes_from_a_bucket_to_a_bucket(
    photos: Path, expected: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            monkeypatch.setenv(name, value)
        from pyarrow.fs import FileSystem

        bucket, _ = FileSystem.from_uri("s3://photos?allow_bucket_creation=true")
        bucket.create_dir("photos/in")
        names = ["00000.png", "00001.png", "bad.png"]
        for name in names:
            with bucket.open_output_stream(f"photos/in/{name}") as file:
                file.write((photos / name).read_bytes())
        call = ("batch", "s3://photos/in", *ASK, "--out", "s3://photos/answers", "--ray", "local", "--workers", "1")
        for _ in range(2):  # the second answers nothing again
            done = run(*call)
            assert done.returncode == 3, done.stderr[-2000:]
            table = dataset.dataset("photos/answers", filesystem=bucket, format="parquet").to_table()
            rows = sorted(table.to_pylist(), key=lambda row: row["id"])
            own = {name.rpartition("/")[2].split(":")[0]: answer for name, answer in expected.items()}
            assert [row["answer"] for row in rows] == [own[name] for name in names]
        absent = run("batch", "s3://photos/none", *call[2:])
        assert absent.returncode == 2
        assert "contains no images" in absent.stderr or "cannot be listed" in absent.stderr
    finally:
        server.stop()
