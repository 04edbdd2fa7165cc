"""How many threads to compute with. genai alone takes half of the logical CPUs: on a machine whose cores have one
thread each, and on most virtual machines, that is half of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")


def compute_threads(cpus: Path = _CPUS, cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """One thread for each physical core this process may run on, no more than its control groups' CPU quota,
    rounded.

    0, where the system does not say (other than Linux), lets ONNX Runtime count the cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    cores = {_siblings(cpus / f"cpu{number}", number) for number in os.sched_getaffinity(0)}
    return max(1, min([len(cores), *map(round, _quotas(cgroups, own))]))


def _siblings(cpu: Path, number: int) -> str:
    """The logical CPUs of this one's core, as the kernel lists them; itself alone where it does not."""
    try:
        return (cpu / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(number)


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group around this process may take: version 2, then version 1."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _group_quotas(root, path, "cpu.max")
        elif "cpu" in controllers.split(","):
            yield from _group_quotas(root / controllers, path, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _group_quotas(root: Path, path: str, *files: str) -> Iterator[float]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            quota, period = " ".join((folder / file).read_text(encoding="ascii") for file in files).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
        except (OSError, ValueError):
            pass  # a container may see less of its groups than /proc names
        if folder == root:
            return
