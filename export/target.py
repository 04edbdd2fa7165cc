"""The folder that a build writes: what may be replaced, room on the disk, and what killed builds left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskSpaceError, ModelFolderError
from ..models.folder import GENAI_CONFIG
from ..models.manifest import has_manifest


@contextmanager
def new_folder(out: Path, source: Path, needed: int, *, overwrite: bool) -> Iterator[Path]:
    """A scratch folder beside `out`, which takes its place once the block has ended without an error.

    `overwrite` replaces an older model folder, and nothing else. `needed` bytes must be free on the disk; `source` is
    what the build reads. Raises ModelFolderError if `out` is taken or cannot be made, or DiskSpaceError.
    """
    target = out.absolute()
    with _usable(target):
        _check_target(target, overwrite, source)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
    _check_disk(target.parent, needed)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        with _usable(target):
            partial.mkdir()
        yield partial
        _check_target(target, overwrite, source)  # another build may have finished first
        _install(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_target(target: Path, overwrite: bool, source: Path) -> None:
    """Refuse a target that holds anything but, when it may be overwritten, a model."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ModelFolderError(f"{target} is not a folder; give a new folder's name")
    for held, what in ((source.resolve(), "what the build reads,"), (Path.cwd(), "the current folder")):
        if held.is_relative_to(target.resolve()):
            raise ModelFolderError(f"{target} holds {what} {held}; give a new folder's name")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise ModelFolderError(f"{target} is not empty; give another name, or overwrite it (--overwrite)")
    if not has_manifest(target) and not (target / GENAI_CONFIG).is_file():
        raise ModelFolderError(f"{target} is not a model folder and is not overwritten; give another name or empty it")


@contextmanager
def _usable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ModelFolderError(f"{target} cannot be made ({exc.strerror}); give another folder's name") from exc


def _check_disk(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DiskSpaceError(
            f"{parent} has {free / 1e9:.1f} GB free and the model needs {needed / 1e9:.1f} GB; "
            "free some space, or give a folder on another disk"
        )


def _remove_stale(target: Path) -> None:
    """Remove what builds of this folder left that were killed; a build that still runs keeps its own."""
    for folder in target.parent.iterdir():
        pid = folder.name.removeprefix(f".{target.name}.partial-")
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _install(partial: Path, target: Path) -> None:
    """Put the finished folder in place; an old one gives way only now."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
