"""How many threads to compute with. genai alone takes half of the logical CPUs: on a machine whose cores have one
thread each, and on most virtual machines, that is half of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import OptionError
from .control_groups import OWN, ROOT, limits

THREADS_VARIABLE = "PHI3V_THREADS"
_CPUS = Path("/sys/devices/system/cpu")


def wanted_threads(threads: int | None = None) -> int:
    """The threads that were asked for, here or by `PHI3V_THREADS`, else `compute_threads`.

    Raises OptionError for what is no number of 1 or more.
    """
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise OptionError(f"threads is {threads!r}; allowed: 1 or more, or None for one a core")
        return threads
    named = os.environ.get(THREADS_VARIABLE)
    if not named:
        return compute_threads()
    if not named.isdecimal() or int(named) < 1:
        raise OptionError(f"{THREADS_VARIABLE} is {named!r}; allowed: 1 or more; unset it for one a core")
    return int(named)


def compute_threads(cpus: Path = _CPUS, cgroups: Path = ROOT, own: Path = OWN) -> int:
    """One thread for each physical core that this process may run on, at most its control groups' rounded CPU quota.

    0 on systems other than Linux: ONNX Runtime then counts the cores.
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
    """CPUs' worth of time that each control group around this process may take."""
    return limits("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"), _quota, root, own)


def _quota(*texts: str) -> float | None:
    quota, period = " ".join(texts).split()
    return None if quota in ("max", "-1") else int(quota) / int(period)
