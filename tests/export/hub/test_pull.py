"""`phi3v pull` against a hub on loopback, in processes of their own, whatever goes wrong on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from hub_server import Fault, Hub, published
from old_layout import write_old_layout
from places import ROOT
from platforms import needs_posix
from processes import MAIN, PATIENCE_S, started

from phi3v.errors import ModelFolderError
from phi3v.export.build import export_model
from phi3v.export.hub.catalog import BUILDS, PublishedBuild
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.models.folder import ModelDir

pytestmark = pytest.mark.torch

# Short pauses between tries; everything else is the real command.
COMMAND = "import phi3v.export.hub.listing as hub; hub.FIRST_WAIT_S = 0.01\n" + MAIN
CPU = next(build for build in BUILDS if build.full_name == "phi-3-vision:cpu-int4")
CUDA = next(build for build in BUILDS if build.full_name == "phi-3-vision:cuda-int4")
FP16 = next(build for build in BUILDS if build.old_layout)
TEXT_DATA = "phi-3-v-128k-instruct-text.onnx.data"
TEXT = "phi-3-v-128k-instruct-text.onnx"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of half a megabyte or so, whose files have the published names."""
    root = tmp_path_factory.mktemp("published")
    checkpoint = write_random_checkpoint(
        root / "checkpoint", tiny_dims(original_context=None, context=2048), dtype="float32"
    )
    return _with_published_names(export_model(checkpoint, root / "plain", precision="fp32"), root / "new", CPU)


def _with_published_names(plain: Path, named: Path, build: PublishedBuild) -> Path:
    shutil.copytree(plain, named)
    config = (named / "genai_config.json").read_text()
    stems = {file.rpartition("-")[2].removesuffix(".onnx"): file for file in build.files if file.endswith(".onnx")}
    for part, file in stems.items():
        graph = onnx.load(named / f"{part}.onnx", load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = f"{file}.data"
        onnx.save(graph, named / file)
        (named / f"{part}.onnx").unlink()
        (named / f"{part}.onnx.data").rename(named / f"{file}.data")
        config = config.replace(f'"{part}.onnx"', f'"{file}"')
    (named / "genai_config.json").write_text(config)
    (named / "special_tokens_map.json").touch()
    return named


@pytest.fixture(scope="module")
def old_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("old")
    plain = write_old_layout(small_model.parent / "plain", root / "plain")
    return _with_published_names(plain, root / "old", FP16)


@pytest.fixture
def hub(small_model: Path) -> Iterator[Hub]:
    server = Hub({CPU.repo: published(small_model, CPU.subfolder) | {"README.md": b"hello"}})
    yield server
    server.close()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    def start(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"{code}\n{COMMAND}", *arguments]
        env = _environment(hub, tmp_path) | environment
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)

    return start


def _environment(hub: Hub, home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PHI3V_"))}
    return kept | {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.url}


def folder_of(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def ask(run: Run, model: str = "phi-3-vision") -> str:
    done = run("ask", "hi", "--model", model, "--max-new-tokens", "4")
    return done.stdout if done.returncode == 0 else f"refused: {done.stderr}"


def nothing_loads(run: Run, home: Path) -> None:
    """No model is there under any name, nor in any folder of the cache."""
    assert ask(run).startswith("refused")
    for config in home.rglob("genai_config.json"):
        with pytest.raises(ModelFolderError):
            ModelDir.open(config.parent)


def test_pull_fetches_verifies_and_answers(run: Run, hub: Hub, small_model: Path) -> None:
    folder = folder_of(run("pull"))
    for name in CPU.files:
        assert (folder / name).read_bytes() == (small_model / name).read_bytes()
    assert not ask(run).startswith("refused")
    manifest = json.loads((folder / "phi3v.json").read_text())
    assert manifest["commit"] == hub.commit
    assert manifest["devices"][0] == manifest["device"]
    assert len(manifest["devices"]) > 1
    assert set(manifest["sha256"]) == {file.name for file in folder.iterdir()} - {"phi3v.json"}
    assert "README.md" not in hub.sent


def test_the_hubs_own_tools_find_what_was_pulled(run: Run, tmp_path: Path) -> None:
    folder = folder_of(run("pull"))
    code = (
        "from huggingface_hub import hf_hub_download, scan_cache_dir\n"
        f"print(hf_hub_download({CPU.repo!r}, {CPU.subfolder + '/' + TEXT!r}, local_files_only=True))\n"
        "print(len(scan_cache_dir().warnings))"
    )
    env = {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, check=True
    )
    assert done.stdout.split() == [str(folder / TEXT), "0"]


def test_a_second_pull_asks_once_and_fetches_nothing(run: Run, hub: Hub) -> None:
    run("pull")
    hub.log.clear()
    again = run("pull")
    assert "up to date" in again.stderr
    assert [path for _, path, _ in hub.log] == [f"/api/models/{CPU.repo}/revision/main"]


def test_a_cut_connection_is_taken_up_where_it_broke(run: Run, hub: Hub) -> None:
    hub.faults = [Fault(f"cdn/{CPU.repo.replace('/', '--')}/{CPU.subfolder}/{TEXT_DATA}", cut_at=0.3)]
    folder = folder_of(run("pull"))
    ranges = [asked for _, path, asked in hub.log if path.endswith(TEXT_DATA) and asked]
    assert len(ranges) >= 1
    assert hub.sent[f"{CPU.subfolder}/{TEXT_DATA}"] == (folder / TEXT_DATA).stat().st_size
    assert not ask(run).startswith("refused")


@pytest.mark.slow
def test_a_server_that_cannot_go_on_is_asked_to_begin_again(run: Run, hub: Hub) -> None:
    where = f"cdn/{CPU.repo.replace('/', '--')}/{CPU.subfolder}/{TEXT_DATA}"
    hub.faults = [Fault(where, cut_at=0.3), Fault(where, status=416)]
    folder_of(run("pull"))
    assert not ask(run).startswith("refused")


@pytest.mark.slow
def test_the_next_process_takes_up_what_a_dead_one_left(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault(f"cdn/{CPU.repo.replace('/', '--')}/{CPU.subfolder}/{TEXT_DATA}", times=1, cut_at=0.3)]
    hub.faults.append(Fault(TEXT_DATA, times=99, status=500))
    failed = run("pull")
    assert failed.returncode == 1
    assert "500" in failed.stderr
    assert "run the same command again" in failed.stderr
    nothing_loads(run, tmp_path)
    hub.faults = []
    folder = folder_of(run("pull"))
    assert hub.sent[f"{CPU.subfolder}/{TEXT_DATA}"] == (folder / TEXT_DATA).stat().st_size


@pytest.mark.parametrize("where", ["resolve", "api"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_refusal_is_tried_again(run: Run, hub: Hub, where: str, status: int) -> None:
    hub.faults = [Fault(f"/{where}/", times=3, status=status, headers={"Retry-After": "0"})]
    folder_of(run("pull"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault("/api/", 99, status=429), "too many requests"),
        (Fault("/api/", 99, status=500), "wait some minutes"),
        (Fault("/api/", 99, status=429, headers={"Retry-After": "3600"}), "too many requests"),
        (Fault("/api/", 99, status=401, headers={"X-Error-Message": "Invalid credentials"}), "HF_TOKEN"),
        (Fault("/api/", 99, status=404, headers={"X-Error-Code": "RepoNotFound"}), "HF_ENDPOINT"),
        (Fault("/resolve/", 99, status=404, headers={"X-Error-Code": "EntryNotFound"}), "gone from the hub"),
        (Fault("/api/", 99, status=403, headers={"X-Error-Code": "GatedRepo"}), "accept its terms"),
        (Fault("/resolve/", 99, status=403, headers={"X-Error-Code": "GatedRepo"}), "accept its terms"),
        (Fault("/resolve/", 99, corrupt=True), "checksum"),
        (Fault("/cdn/", 99, corrupt=True), "checksum"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.where}{value.status or 'corrupt'}",
)
def test_a_final_refusal_says_what_to_do_and_leaves_nothing_that_loads(
    run: Run, hub: Hub, fault: Fault, advice: str, tmp_path: Path
) -> None:
    hub.faults = [fault]
    failed = run("pull")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert advice in " ".join(failed.stderr.split())
    nothing_loads(run, tmp_path)
    hub.faults = []
    folder_of(run("pull"))


def test_a_server_that_stalls_is_given_up(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", 99, stall=True)]
    failed = run("pull", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert failed.returncode == 1
    assert "no answer within 1 s" in failed.stderr
    nothing_loads(run, tmp_path)


def test_a_token_reaches_the_hub_and_not_the_file_server(run: Run, hub: Hub) -> None:
    hub.token = "secret"
    assert run("pull").returncode == 1
    folder_of(run("pull", HF_TOKEN="secret"))


@pytest.mark.slow
def test_a_byte_that_rots_is_found_named_and_alone_fetched_again(run: Run, hub: Hub) -> None:
    folder = folder_of(run("pull"))
    blob = (folder / TEXT_DATA).resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    found = run("verify", "phi-3-vision")
    assert found.returncode == 1
    assert f"{TEXT_DATA} does not match its recorded SHA-256" in found.stdout
    assert "phi3v pull" in ask(run)
    hub.sent.clear()
    folder_of(run("pull"))
    assert list(hub.sent) == [f"{CPU.subfolder}/{TEXT_DATA}"]
    assert run("verify", "phi-3-vision").returncode == 0
    assert not ask(run).startswith("refused")


@pytest.mark.slow
def test_a_truncated_or_lost_file_never_loads_and_is_fetched_again(run: Run, hub: Hub) -> None:
    folder = folder_of(run("pull"))
    (folder / TEXT).resolve().write_bytes(b"x" * 10)
    (folder / "tokenizer.json").resolve().unlink()
    assert ask(run).startswith("refused")
    hub.sent.clear()
    folder_of(run("pull"))
    assert sorted(hub.sent) == sorted(f"{CPU.subfolder}/{name}" for name in (TEXT, "tokenizer.json"))


def test_a_disk_too_small_is_refused_before_the_first_byte(run: Run, hub: Hub) -> None:
    code = (
        "import shutil, collections; D = collections.namedtuple('D', 'free'); shutil.disk_usage = lambda path: D(1000)"
    )
    failed = run("pull", code=code)
    assert failed.returncode == 1
    assert "0.00 GB free" in failed.stderr
    assert "HF_HOME" in failed.stderr
    assert hub.sent == {}


def test_two_pulls_at_once_fetch_every_byte_once(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", 99, slow_s=0.02)]
    command = [sys.executable, "-c", COMMAND, "pull"]
    env = _environment(hub, tmp_path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(command, env=env, **pipes) as one, started(command, env=env, **pipes) as two:
        both = (one, two)
        outputs = [process.communicate(timeout=PATIENCE_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    sizes = {path: len(body) for path, body in hub.repos[CPU.repo].items() if path.startswith(CPU.subfolder)}
    assert hub.sent == sizes
    assert "another phi3v" in outputs[0][1] + outputs[1][1]


@needs_posix
@pytest.mark.slow
def test_ctrl_c_leaves_pieces_that_the_next_pull_goes_on_from(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", 99, slow_s=0.5)]
    command = [sys.executable, "-c", COMMAND, "pull"]
    with started(command, env=_environment(hub, tmp_path), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while hub.sent.get(f"{CPU.subfolder}/{TEXT_DATA}", 0) < 1 << 17 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    nothing_loads(run, tmp_path)
    hub.faults = []
    folder_of(run("pull"))
    assert any(asked for _, path, asked in hub.log if path.endswith(".data"))


@pytest.mark.slow
def test_offline_opens_no_socket(run: Run, hub: Hub) -> None:
    no_sockets = (
        "import socket\ndef refuse(*a, **k): raise SystemExit('opened a socket')\nsocket.socket.connect = refuse"
    )
    absent = run("pull", "--offline", code=no_sockets)
    assert absent.returncode == 1
    assert "not on this machine" in absent.stderr
    folder_of(run("pull"))
    asked = len(hub.log)
    for options, environment in (("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"}):
        folder_of(run("pull", *options, code=no_sockets, **environment))
    assert "opened" not in run("models", code=no_sockets).stderr
    assert len(hub.log) == asked


def test_a_hub_out_of_reach_leaves_a_complete_model_in_use(run: Run, hub: Hub) -> None:
    folder_of(run("pull"))
    done = run("pull", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "complete" in done.stderr


@pytest.mark.slow
def test_a_new_commit_is_fetched_and_shares_what_did_not_change(run: Run, hub: Hub) -> None:
    old = folder_of(run("pull"))
    hub.commit = "beef" + "0" * 36
    path = f"{CPU.subfolder}/special_tokens_map.json"
    hub.repos[CPU.repo][path] = b'{"bos_token": "<s>"} '
    hub.sent.clear()
    new = folder_of(run("pull"))
    assert new != old
    assert hub.sent == {path: 21}
    assert json.loads(run("ask", "hi", "--json", "--max-new-tokens", "1", "--model", "phi-3-vision").stdout)[
        "model"
    ] == str(new)


@pytest.mark.slow
def test_rm_frees_what_it_says(run: Run, tmp_path: Path) -> None:
    run("pull")
    before = _bytes_under(tmp_path / "hf")
    done = run("rm", "phi-3-vision", "--yes")
    freed = int(done.stderr.rsplit("freed ", 1)[1].split()[0].replace(",", ""))
    assert before - _bytes_under(tmp_path / "hf") == freed
    assert _bytes_under(tmp_path / "hf") == 0
    nothing_loads(run, tmp_path)
    assert "nothing of phi-3-vision" in run("rm", "phi-3-vision", "--yes").stderr


def test_rm_takes_what_an_unfinished_pull_left(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault(TEXT_DATA, times=99, status=500)]
    run("pull")
    assert _bytes_under(tmp_path / "hf") > 0
    assert run("rm", "phi-3-vision", "-y").returncode == 0
    assert _bytes_under(tmp_path / "hf") == 0


@pytest.mark.slow
def test_rm_of_one_variant_spares_the_others(run: Run, hub: Hub, small_model: Path) -> None:
    hub.repos[CPU.repo] |= published(small_model, CUDA.subfolder)
    folder_of(run("pull", CUDA.full_name))
    hub.faults = [Fault(f"{CPU.subfolder}/{TEXT_DATA}", times=99, status=500)]
    hub.repos[CPU.repo][f"{CPU.subfolder}/special_tokens_map.json"] = b"of the other variant alone"
    run("pull", CPU.full_name)
    assert run("rm", CUDA.full_name, "-y").returncode == 0
    hub.faults = []
    hub.sent.clear()
    folder_of(run("pull", CPU.full_name))
    assert f"{CPU.subfolder}/special_tokens_map.json" not in hub.sent
    assert not ask(run).startswith("refused")


def test_rm_takes_a_snapshot_that_never_became_a_model(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.repos[CPU.repo][f"{CPU.subfolder}/genai_config.json"] = b'{"model": {}}'
    assert run("pull").returncode == 1
    assert run("rm", "phi-3-vision", "-y").returncode == 0
    assert _bytes_under(tmp_path / "hf") == 0


def test_an_endpoint_that_is_no_hub_is_named(run: Run, hub: Hub) -> None:
    hub.faults = [Fault("/api/", 99, page=b"<html>please log in</html>")]
    failed = run("pull")
    assert failed.returncode == 1
    assert "check HF_ENDPOINT" in " ".join(failed.stderr.split())


def test_the_list_names_whole_variants_in_a_pipe(run: Run) -> None:
    listed = run("models").stdout
    assert all(build.full_name in listed for build in BUILDS)


def test_a_build_that_lacks_a_known_file_is_refused(run: Run, hub: Hub, tmp_path: Path) -> None:
    del hub.repos[CPU.repo][f"{CPU.subfolder}/{TEXT}"]
    failed = run("pull")
    assert f"lacks {TEXT}" in failed.stderr
    nothing_loads(run, tmp_path)


def test_a_build_that_is_no_model_never_becomes_one(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.repos[CPU.repo][f"{CPU.subfolder}/genai_config.json"] = b'{"model": {}}'
    failed = run("pull")
    assert failed.returncode == 1
    assert "genai_config.json" in failed.stderr
    nothing_loads(run, tmp_path)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.full_name)
def test_a_dry_run_names_every_published_file(run: Run, hub: Hub, build: PublishedBuild) -> None:
    hub.repos = {build.repo: {f"{build.subfolder}/{name}": name.encode() for name in build.files}}
    done = run("pull", build.full_name, "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in build.files:
        assert f"{build.subfolder}/{name}" in done.stdout
    assert "GB free" in done.stdout
    assert str(Path("snapshots") / hub.commit / build.subfolder) in done.stdout
    assert hub.sent == {}


@pytest.mark.slow
def test_the_fp16_build_is_migrated_without_a_second_copy(
    run: Run, hub: Hub, old_model: Path, small_model: Path, tmp_path: Path
) -> None:
    hub.repos = {
        FP16.repo: published(old_model, FP16.subfolder),
        CPU.repo: published(small_model, CPU.subfolder),
    }
    weights = sum(file.stat().st_size for file in old_model.glob("*.data"))
    folder = folder_of(run("pull", FP16.full_name))
    assert _bytes_under(tmp_path / "hf") < 2 * weights
    assert run("verify", FP16.full_name).returncode == 0
    picture = str(ROOT / "examples" / "chart.png")
    options = ("--max-new-tokens", "32", "--device", "cpu", "--num-crops", "1", "--json")
    folder_of(run("pull", CPU.full_name))
    answers = [run("ask", "hi", picture, "--model", m, *options).stdout for m in (str(folder), CPU.full_name)]
    assert json.loads(answers[0])["text"] == json.loads(answers[1])["text"]
    (folder / "genai_config.json").write_text("{}")
    assert run("verify", FP16.full_name).returncode == 1
    folder_of(run("pull", FP16.full_name))
    assert run("verify", FP16.full_name).returncode == 0
    run("rm", "phi-3-vision", "-y")
    assert _bytes_under(tmp_path / "hf") == 0


def _bytes_under(folder: Path) -> int:
    """What a folder's files take, each counted once however many names it has; locks are empty files."""
    files = {
        file.stat().st_ino: file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }
    return sum(files.values())


@pytest.fixture(scope="module")
def int4_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("int4")
    checkpoint = write_random_checkpoint(root / "checkpoint", tiny_dims(original_context=256), dtype="float32")
    plain = export_model(checkpoint, root / "plain", precision="int4", block_size=32, prefill="int4")
    return _with_published_names(plain, root / "new", CPU)


def test_int8_prefill_is_made_beside_the_pulled_build_and_is_taken_first(run: Run, hub: Hub, int4_model: Path) -> None:
    hub.repos[CPU.repo] = published(int4_model, CPU.subfolder)
    pulled = run("pull")
    assert "phi3v pull phi-3-vision:cpu-int4 --prefill int8" in pulled.stderr
    plain, faster = folder_of(pulled), folder_of(run("pull", "--prefill", "int8"))
    assert faster == plain / "int8-prefill"
    listed = run("models").stdout
    assert "cpu-int4-int8-prefill" in listed
    assert str(faster) in run("info", "phi-3-vision").stdout
    assert not ask(run).startswith("refused")
    before = (faster / "phi3v.json").stat().st_mtime_ns
    assert folder_of(run("pull", "--prefill", "int8")) == faster
    assert (faster / "phi3v.json").stat().st_mtime_ns == before
    assert run("rm", "phi-3-vision:cpu-int4-int8-prefill", "--yes").returncode == 0
    assert not faster.exists()
    assert not ask(run, "phi-3-vision:cpu-int4").startswith("refused")


def test_int8_prefill_is_refused_for_another_build(run: Run, hub: Hub, small_model: Path) -> None:
    hub.repos[CUDA.repo] = published(small_model, CPU.subfolder) | published(small_model, CUDA.subfolder)
    done = run("pull", "phi-3-vision:cuda-int4", "--prefill", "int8")
    assert done.returncode == 1
    assert "int8 prefill is for cpu-int4 builds" in done.stderr
