"""Crops in memory that two processes share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phi3v.process import crops
from phi3v.process.crops import CropsFolder


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Shared memory and the temporary folder."""
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(crops, "_SHARED_MEMORY", shared)
    monkeypatch.setattr(crops.tempfile, "gettempdir", lambda: str(temporary))
    return shared, temporary


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_was_written_is_read(dtype: type) -> None:
    folder = CropsFolder()
    pixels = np.arange(2 * 3 * 4 * 4, dtype=dtype).reshape(2, 3, 4, 4)
    file = folder.write(pixels[:, ::-1])  # not contiguous
    assert np.array_equal(file.open(), pixels[:, ::-1])
    file.delete()
    file.delete()
    folder.close()


def test_closing_removes_everything(places: tuple[Path, Path]) -> None:
    folder = CropsFolder()
    folder.write(np.zeros(4))
    folder.close()
    assert [list(place.iterdir()) for place in places] == [[], []]


def test_a_full_shared_memory_is_replaced_by_the_temporary_folder(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CropsFolder()
    real = os.fdopen

    def full(number: int, mode: str) -> object:
        if Path(f"/proc/self/fd/{number}").readlink().is_relative_to(places[0]):
            os.close(number)
            raise OSError(28, "No space left on device")
        return real(number, mode)

    if Path("/proc/self/fd").exists():
        monkeypatch.setattr(crops.os, "fdopen", full)
        assert folder.write(np.ones(4)).path.startswith(str(places[1]))
        monkeypatch.undo()
    folder.close()


def test_what_a_killed_process_left_is_removed_by_the_next(places: tuple[Path, Path]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = places[0] / f"phi3v-crops-{ended.pid}-abc"
    left.mkdir()
    ours = places[0] / f"phi3v-crops-{os.getpid()}-abc"
    ours.mkdir()
    CropsFolder().close()
    assert not left.exists()
    assert ours.exists()
