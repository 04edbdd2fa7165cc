"""How much memory this machine, or the container around this process, has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .control_groups import OWN, ROOT, limits

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


def reset_peak_memory() -> bool:
    """Start `peak_memory` anew from what this process holds now (Linux). False where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


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


def _cgroup_limits(root: Path = ROOT, own: Path = OWN) -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group around this process that has a limit."""
    new = ("memory.max", "memory.current", "memory.stat")
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    return limits("memory", new, old, _limit, root, own)


def _limit(limit: str, used: str, stat: str) -> tuple[int, int] | None:
    """Files kept in memory do not count as used: the kernel gives them up when memory is asked for."""
    fields = dict(line.split() for line in stat.splitlines())
    cache = int(fields.get("total_inactive_file") or fields.get("inactive_file") or 0)
    return None if limit == "max" else (int(limit), max(0, int(used) - cache))
