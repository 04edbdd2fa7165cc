"""The control groups around this process, which limit it where containers run (Linux, versions 2 and 1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
T = TypeVar("T")


def limits(
    controller: str, new: Sequence[str], old: Sequence[str], read: Callable[..., T | None], root: Path, own: Path
) -> Iterator[T]:
    """Yield the limit that `read` makes of each group's files, from the innermost group out; None means no limit.

    `new` names the files in version 2, `old` those of `controller` in version 1. No groups, no limits.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _walk(root, path, new, read)
        elif controller in controllers.split(","):
            yield from _walk(root / controllers, path, old, read)


def _walk(root: Path, path: str, names: Sequence[str], read: Callable[..., T | None]) -> Iterator[T]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # a container may see less of its groups than /proc names
            limit = read(*((folder / name).read_text(encoding="ascii").strip() for name in names))
            if limit is not None:
                yield limit
        if folder == root:
            return
