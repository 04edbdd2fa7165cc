"""The crops of a request in memory that two processes share: a file on /dev/shm, where there is one with room for it.

A file and not `multiprocessing.shared_memory`: writing to a full /dev/shm (64 MB in a Docker container) raises OSError
here and kills the process there, and no helper process has to clean up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "phi3v-crops-"


@dataclass(frozen=True, slots=True)
class CropsFile:
    """Where crops are, and what they are."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> npt.NDArray[Any]:
        """The crops, mapped; they stay readable when the file is deleted, on systems that allow that."""
        return np.memmap(self.path, dtype=np.dtype(self.dtype), mode="r", shape=self.shape)

    def delete(self) -> None:
        """Free the memory once nobody has it mapped."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()


class CropsFolder:
    """Holds the crops files of one process. It is removed with this object, and a crashed process's with the next."""

    def __init__(self) -> None:
        _remove_left_behind()
        self._places = [
            _make_folder(place) for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())) if place.is_dir()
        ]
        self._finalizer = weakref.finalize(self, _remove_all, os.getpid(), [place for place in self._places if place])

    def write(self, pixels: npt.NDArray[Any]) -> CropsFile:
        """Put crops into a file. Raises OSError if there is no room anywhere."""
        data = np.ascontiguousarray(pixels)
        for folder in (place for place in self._places if place):
            number, name = tempfile.mkstemp(dir=folder)
            crops = CropsFile(name, data.shape, data.dtype.str)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(data.view(np.uint8).data)
                return crops
            except OSError as exc:
                crops.delete()
                failure = exc
        raise failure

    def close(self) -> None:
        """Remove all files."""
        self._finalizer()


def _make_folder(place: Path) -> str | None:
    try:
        return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
    except OSError:
        return None


def _remove_all(owner: int, folders: list[str]) -> None:
    if os.getpid() == owner:  # not in a forked child
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind() -> None:
    """Remove the folders of this user's processes that were killed."""
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        for folder in place.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX).split("-")[0]
            if owner.isdigit() and not _is_running(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
