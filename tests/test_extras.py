""".ci/extras: what becomes of a part that passes, fails, cannot be run or hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT
from processes import PATIENCE_S, started

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the parts are shell scripts")

COMMAND = [sys.executable, str(ROOT / ".ci" / "extras"), "--parts"]


def write_part(folder: Path, name: str, *lines: str, limit: str = "# limit: 60") -> Path:
    part = folder / name
    part.write_text("\n".join(["#!/bin/sh", limit, *lines, ""]))
    part.chmod(0o755)
    return part


def extras(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(folder), *names], capture_output=True, text=True, timeout=PATIENCE_S)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the table at the end says of each part, its seconds left out."""
    lines = done.stdout.partition("== extras\n")[2].splitlines()
    return {line.split()[0]: line.partition(" s  ")[2] for line in lines}


def ends_soon(pid: int) -> bool:
    """Whether a process ends, or is a zombie that waits for its parent, within twenty seconds."""
    for _ in range(400):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_parts_that_pass_or_cannot_be_run_are_no_failure(tmp_path: Path) -> None:
    write_part(tmp_path, "one", "echo all is well")
    write_part(tmp_path, "two", "echo looking", "echo there is no npm here", "exit 77")
    done = extras(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(done) == {"one": "passed", "two": "not run: there is no npm here"}
    assert "all is well" in done.stdout


def test_a_part_that_fails_makes_the_whole_fail_after_the_others_ran(tmp_path: Path) -> None:
    write_part(tmp_path, "one", "exit 3")
    write_part(tmp_path, "two", "echo two ran >&2")
    done = extras(tmp_path)
    assert done.returncode == 1
    assert summary(done) == {"one": "failed: status 3", "two": "passed"}
    assert "two ran" in done.stdout


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("deaf", [(), ("trap '' TERM",)], ids=["heard", "ignored"])
def test_a_part_that_hangs_is_ended_with_all_its_processes(tmp_path: Path, deaf: tuple[str, ...]) -> None:
    children = tmp_path / "children"
    parts = tmp_path / "parts"
    parts.mkdir()
    hanging = ("sleep 300 &", f"echo $! $$ > {children}", "wait; wait; sleep 300")
    write_part(parts, "one", *deaf, *hanging, limit="# limit: 1")
    write_part(parts, "two")
    done = extras(parts)
    assert done.returncode == 1
    assert summary(done) == {"one": "failed: took more than 1 s", "two": "passed"}
    assert all(ends_soon(int(pid)) for pid in children.read_text().split())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_a_process_that_a_part_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    left = tmp_path / "left"
    parts = tmp_path / "parts"
    parts.mkdir()
    write_part(parts, "one", "sleep 300 &", f"echo $! > {left}")
    assert summary(extras(parts)) == {"one": "passed"}
    assert ends_soon(int(left.read_text()))


def test_a_part_without_a_limit_or_that_cannot_be_run_fails(tmp_path: Path) -> None:
    write_part(tmp_path, "one", limit="# no limit")
    write_part(tmp_path, "two").chmod(0o644)
    done = extras(tmp_path)
    assert done.returncode == 1
    assert summary(done) == {
        "one": "failed: its head says no `# limit: SECONDS`",
        "two": "failed: cannot be run: Permission denied",
    }


def test_a_part_has_a_folder_of_its_own_that_is_removed(tmp_path: Path) -> None:
    where = tmp_path / "where"
    parts = tmp_path / "parts"
    parts.mkdir()
    write_part(parts, "one", 'test -z "$(ls "$SCRATCH")"', 'touch "$SCRATCH/file"', f'echo "$SCRATCH" > {where}; pwd')
    done = extras(parts)
    assert summary(done) == {"one": "passed"}
    assert not Path(where.read_text().strip()).exists()
    assert str(ROOT) in done.stdout


def test_only_the_parts_that_are_named_run(tmp_path: Path) -> None:
    write_part(tmp_path, "one")
    write_part(tmp_path, "two", "exit 1")
    assert summary(extras(tmp_path, "one")) == {"one": "passed"}
    done = extras(tmp_path, "three")
    assert done.returncode == 2
    assert "there are: one, two" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_part_ends_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    pid = tmp_path / "pid"
    parts = tmp_path / "parts"
    parts.mkdir()
    write_part(parts, "one", f"echo $$ > {pid}.new; mv {pid}.new {pid}", "sleep 300")
    with started([*COMMAND, str(parts)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        for _ in range(400):
            if pid.exists():
                break
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(timeout=PATIENCE_S) != 0
    assert ends_soon(int(pid.read_text()))


def test_every_part_of_ours_has_a_limit_and_can_be_run() -> None:
    parts = sorted((ROOT / ".ci" / "extras.d").iterdir())
    assert parts
    for part in parts:
        assert os.access(part, os.X_OK), part
        assert any(line.startswith("# limit: ") for line in part.read_text().splitlines()[:5]), part
