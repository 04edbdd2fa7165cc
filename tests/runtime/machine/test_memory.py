"""A container's limit counts where it is below the machine's memory."""

from pathlib import Path

import numpy as np
import pytest

from phi3v.machine.memory import _cgroup_limits, available_memory, peak_memory, reset_peak_memory, total_memory


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_machine_has_memory_and_some_of_it_is_free() -> None:
    available, total = available_memory(), total_memory()
    assert available is not None
    assert total is not None
    assert 0 < available <= total


def test_every_group_with_a_limit_counts_and_cached_files_are_free(tmp_path: Path) -> None:
    write(tmp_path / "a", memory__max="1000", memory__current="400", memory__stat="anon 1\ninactive_file 100\n")
    write(tmp_path / "a" / "b", memory__max="max", memory__current="300", memory__stat="inactive_file 0\n")
    (tmp_path / "own").write_text("0::/a/b\n")
    assert list(_cgroup_limits(tmp_path, tmp_path / "own")) == [(1000, 300)]


def test_the_older_groups_are_read_too(tmp_path: Path) -> None:
    write(
        tmp_path / "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="400",
        memory__stat="total_inactive_file 100\n",
    )
    (tmp_path / "own").write_text("4:memory:/docker/absent\n2:cpu:/\n")
    assert list(_cgroup_limits(tmp_path, tmp_path / "own")) == [(1000, 300)]


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert list(_cgroup_limits(tmp_path, tmp_path / "absent")) == []


def test_the_peak_falls_to_what_is_held_once_it_is_reset() -> None:
    np.ones(25_000_000)  # 200 MB that the process holds and gives back
    before = peak_memory()
    if not reset_peak_memory():
        pytest.skip("this system cannot reset the peak")
    after = peak_memory()
    assert before is not None
    assert after is not None
    assert after < before - 150_000_000
