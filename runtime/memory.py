"""How much memory this machine, or the container around this process, has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping (Linux `MemAvailable`, cgroup limits); None where unknown."""
    return _least(_table_bytes(_MEMINFO, "MemAvailable"), *(limit - used for limit, used in _cgroup_limits()))


def total_memory() -> int | None:
    """Bytes of RAM (Linux `MemTotal`, cgroup limits); None where the system does not say."""
    return _least(_table_bytes(_MEMINFO, "MemTotal"), *(limit for limit, _ in _cgroup_limits()))


def peak_memory() -> int | None:
    """Most bytes of RAM this process has held at once (Linux `VmHWM`); None where the system does not say."""
    return _table_bytes(Path("/proc/self/status"), "VmHWM")


def _least(machine: int | None, *groups: int) -> int | None:
    return min((size for size in (machine, *groups) if size is not None), default=None)


def _table_bytes(table: Path, field: str) -> int | None:
    """A field that one of the kernel's tables states in KiB."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_limits(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group around this process that has a limit: version 2, then version 1."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(root, path, "memory.max", "memory.current")
        elif controllers == "memory":
            yield from _limits(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _limits(root: Path, path: str, limit: str, used: str) -> Iterator[tuple[int, int]]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            most = (folder / limit).read_text(encoding="ascii").strip()
            if most != "max":
                yield int(most), max(0, int((folder / used).read_text(encoding="ascii")) - _cache(folder))
        except (OSError, ValueError):
            pass  # a container may see less of its groups than /proc names
        if folder == root:
            return


def _cache(folder: Path) -> int:
    """Bytes of files kept in memory, which the kernel gives up when memory is asked for."""
    fields = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    return int(fields.get("total_inactive_file") or fields.get("inactive_file") or 0)
