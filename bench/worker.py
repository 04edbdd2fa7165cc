"""One subject in a process of its own, so that its memory and its start are measured apart from everything else.

Run as `python -m phi3v.bench.worker SPEC` with a JSON spec. It then reads one JSON case per line and writes one JSON
answer per line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from ..machine.cuda import gpu_memory_used
from ..machine.memory import peak_memory, reset_peak_memory


def main() -> None:
    """Load the subject, report the time that took, and answer cases until standard input ends."""
    # What libraries print goes to stderr: only answers may appear on stdout.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    began = time.perf_counter()
    try:
        from .cases import Case
        from .subjects import make_subject

        subject = make_subject(
            *(spec["subject"], Path(spec["model"]), spec["device"]),
            **{name: spec[name] for name in ("cuda_graph", "sdpa_kernel", "buffer_step", "threads")},
        )
        print(json.dumps({"load_s": time.perf_counter() - began}), file=answers)
        for line in sys.stdin:
            task = json.loads(line)
            reset_peak_memory()
            sample = subject.run(Case.parse(task["case"]), Path(task["image"]))
            print(json.dumps(dataclasses.asdict(sample) | _read_memory()), file=answers)
    except Exception as exc:
        print(json.dumps({"error": f"{type(exc).__name__}: {exc}"}), file=answers)
        raise SystemExit(1) from exc


def _read_memory() -> dict[str, int | None]:
    """Read the peak during this answer, which includes the loaded model. Not part of the timed region."""
    return {"rss_peak_bytes": peak_memory(), "gpu_used_bytes": gpu_memory_used()}


if __name__ == "__main__":
    main()
