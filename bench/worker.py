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

from ..machine.device import gpu_memory_used
from ..machine.memory import peak_memory, reset_peak_memory


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
            reset_peak_memory()
            sample = subject.run(Case.parse(task["case"]), Path(task["image"]))
            print(json.dumps(dataclasses.asdict(sample) | _memory()), file=answers)
    except Exception as exc:
        print(json.dumps({"error": f"{type(exc).__name__}: {exc}"}), file=answers)
        raise SystemExit(1) from exc


def _memory() -> dict[str, int | None]:
    """This answer's peak, the loaded model included, read outside the timed region."""
    return {"rss_peak_bytes": peak_memory(), "gpu_used_bytes": gpu_memory_used()}


if __name__ == "__main__":
    main()
