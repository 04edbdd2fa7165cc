"""One subject in a process of its own: its memory is its own, and so is its start.

`python -m phi3v.bench.worker SPEC` with a JSON spec; then one JSON case a line in, one JSON answer a line out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Load, say so, and answer cases until standard input ends."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    began = time.perf_counter()
    try:
        from .cases import Case
        from .subjects import make_subject

        subject = make_subject(
            *(spec["subject"], Path(spec["model"]), spec["device"]),
            cuda_graph=spec["cuda_graph"],
            threads=spec["threads"],
        )
        print(json.dumps({"load_s": time.perf_counter() - began}), file=answers)
        for line in sys.stdin:
            task = json.loads(line)
            sample = subject.run(Case.parse(task["case"]), Path(task["picture"]))
            print(json.dumps(dataclasses.asdict(sample) | _memory()), file=answers)
    except Exception as exc:
        print(json.dumps({"error": f"{type(exc).__name__}: {exc}"}), file=answers)
        raise SystemExit(1) from exc


def _memory() -> dict[str, int | None]:
    """Peaks of this process so far, read outside the timed region."""
    peak = None
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    except OSError:
        pass
    return {"rss_peak_bytes": peak, "gpu_used_bytes": _gpu_used()}


def _gpu_used() -> int | None:
    """Bytes in use on the first GPU, by everything, as the driver counts them; None without one."""
    from ..device import gpu_memory_used

    return gpu_memory_used()


if __name__ == "__main__":
    main()
