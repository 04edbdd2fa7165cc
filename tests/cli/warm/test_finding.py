"""Which warm engine a client takes: one of the same user, version, surroundings and model, or none."""

import contextlib
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from processes import MAIN
from warm_home import SHORT, Home, connected, needs_unix_sockets, until

from phi3v.cli.warm.frames import pack

pytestmark = needs_unix_sockets


def test_a_client_of_a_warm_engine_loads_neither_numpy_nor_an_engine(shared: Home) -> None:
    code = (
        "import sys; from phi3v.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'onnxruntime_genai', 'tokenizers', 'huggingface_hub', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = shared.run("ask", "hi", "photo.webp", *SHORT, code=code)
    assert done.stderr.decode().splitlines()[-1] == "[]"
    assert done.stdout


def test_asking_a_warm_engine_costs_a_third_of_a_second_of_computing(shared: Home) -> None:
    """CPU time, which other work on the machine does not change; docs/benchmarks.md has the wall time."""

    def cost() -> float:
        before = os.times()
        assert shared.run("ask", "hi", "photo.webp", *SHORT).returncode == 0
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    assert min(cost() for _ in range(8)) < 0.35


def test_the_socket_is_for_its_user_alone(shared: Home) -> None:
    assert stat.S_IMODE(shared.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(shared.sockets.stat().st_mode) == 0o700


@pytest.mark.skipif(getattr(os, "geteuid", int)() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_files_let_him_in(own: Home) -> None:
    with own.warm():
        for folder in (own.sockets, *own.sockets.parents):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)
        path = own.path()
        path.chmod(0o666)
        os.seteuid(65534)
        try:
            connection = connected(path)
        finally:
            os.seteuid(0)
        with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(pack({"op": "status"}))
            assert connection.recv(1) == b""
        own.sockets.chmod(0o700)
        assert len(own.status()) == 1


def test_a_folder_that_others_can_enter_is_not_used(own: Home) -> None:
    own.sockets.mkdir(mode=0o755)
    own.sockets.chmod(0o755)
    (own.sockets / "engine-1.sock").touch()
    done = own.run("ask", "hi", *SHORT)
    assert done.returncode == 0
    assert b"mode 0700" in done.stderr.splitlines()[0]
    assert own.run("warm", "--background").returncode == 1


def test_a_client_of_another_version_says_so_and_loads_the_model(shared: Home) -> None:
    done = shared.run("ask", "hi", *SHORT, "--json", code=f"import phi3v; phi3v.__version__ = '9.9'; {MAIN}")
    assert json.loads(done.stdout)["warm"] is False
    (line,) = (line for line in done.stderr.decode().splitlines() if "warm engine" in line)
    assert "phi3v 9.9" in line


def test_other_surroundings_are_another_engine(shared: Home, tmp_path: Path) -> None:
    done = shared.run("ask", "hi", *SHORT, "--json", HF_HOME=str(tmp_path))
    assert json.loads(done.stdout)["warm"] is False
    assert b"HF_HOME" in done.stderr


def test_another_model_is_loaded_without_a_word(shared: Home, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "twin")
    record = json.loads(shared.run("ask", "hi", *SHORT, "--json", "--model", str(tmp_path / "twin")).stdout)
    assert record["warm"] is False


def test_a_link_to_the_same_model_is_the_same_model(shared: Home, model: Path) -> None:
    (shared.root / "link").symlink_to(model)
    record = json.loads(shared.run("ask", "hi", *SHORT, "--json", "--model", "link").stdout)
    assert (record["warm"], record["model"]) == (True, "link")


def test_a_model_that_was_replaced_is_noticed(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    home = Home(tmp_path, tmp_path / "copy")
    with home.warm():
        weights = max(home.model.iterdir(), key=lambda file: file.stat().st_size)
        times = weights.stat()
        shutil.copyfile(weights, tmp_path / "other")
        shutil.copyfile(tmp_path / "other", weights)  # in place: same name, size and inode
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = home.run("ask", "hi", *SHORT, "--json")
        assert json.loads(done.stdout)["warm"] is False
        assert b"changed after it was loaded" in done.stderr
        until(lambda: not list(home.sockets.glob("*.sock")))


def test_without_unix_sockets_everything_falls_back(own: Home) -> None:
    code = f"import socket; del socket.AF_UNIX; {MAIN}"
    assert own.run("ask", "hi", *SHORT, code=code).returncode == 0
    left = own.run("ask", "hi", *SHORT, "--keep-alive", "5m", code=code)
    assert left.returncode == 0
    assert b"no warm engine is left behind" in left.stderr
    for arguments in ((), ("--background",)):
        done = own.run("warm", *arguments, code=code)
        assert done.returncode == 1
        assert b"Unix sockets" in done.stderr
    assert own.run("warm", "--status", code=code).returncode == 0
