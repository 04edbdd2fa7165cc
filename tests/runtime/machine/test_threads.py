"""Counting the cores that may be used."""

import os
from pathlib import Path

import pytest

import phi3v
from phi3v.errors import OptionError
from phi3v.machine.threads import compute_threads, wanted_threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four logical CPUs in two cores, no control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / "cpu" / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    return tmp_path


def threads(machine: Path) -> int:
    return compute_threads(machine / "cpu", machine / "cgroup", machine / "own")


def quota(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_threads_that_share_a_core_count_once(machine: Path) -> None:
    assert threads(machine) == 2


def test_cores_without_a_topology_count_each(machine: Path) -> None:
    assert compute_threads(machine / "nowhere", machine / "cgroup", machine / "own") == 4


def test_a_process_bound_to_one_cpu_takes_one_thread(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert threads(machine) == 1


@pytest.mark.parametrize(("text", "expected"), [("max 100000", 2), ("150000 100000", 2), ("50000 100000", 1)])
def test_the_quota_of_a_group_around_the_process_counts(machine: Path, text: str, expected: int) -> None:
    (machine / "own").write_text("0::/user/app\n")
    quota(machine / "cgroup" / "user", cpu__max=text)
    assert threads(machine) == expected


@pytest.mark.parametrize(("us", "expected"), [("-1", 2), ("100000", 1)])
def test_the_quota_of_the_older_groups_counts_too(machine: Path, us: str, expected: int) -> None:
    (machine / "own").write_text("3:cpu,cpuacct:/box\n2:memory:/box\n")
    quota(machine / "cgroup" / "cpu,cpuacct" / "box", cpu__cfs_quota_us=us, cpu__cfs_period_us="100000")
    assert threads(machine) == expected


def test_a_system_that_does_not_say_leaves_it_to_onnx_runtime(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads(machine) == 0


def test_threads_that_are_asked_for_come_before_the_variable_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHI3V_THREADS", raising=False)
    assert wanted_threads() == compute_threads()
    monkeypatch.setenv("PHI3V_THREADS", "3")
    assert (wanted_threads(), wanted_threads(5)) == (3, 5)


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.5])
def test_what_is_no_number_of_threads_is_refused(threads: object) -> None:
    with pytest.raises(OptionError, match=r"threads is .*; allowed: 1 or more"):
        wanted_threads(threads)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="threads is"):
        phi3v.load("nano", threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("named", ["0", "all", "-2", "1.5"])
def test_a_variable_that_is_no_number_of_threads_is_named(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("PHI3V_THREADS", named)
    with pytest.raises(OptionError, match=f"PHI3V_THREADS is '{named}'; allowed: 1 or more"):
        wanted_threads()
