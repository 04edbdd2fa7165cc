"""How much memory this machine has."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping (Linux `MemAvailable`); None where the system does not say."""
    return _meminfo("MemAvailable")


def total_memory() -> int | None:
    """Bytes of RAM (Linux `MemTotal`); None where the system does not say."""
    return _meminfo("MemTotal")


def _meminfo(field: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
