"""Which GPU kernels an answer spends its time in: `profile_kernels`.

PyTorch's profiler sees every kernel of its process, ONNX Runtime's among them; ONNX Runtime's own profile times only
what the host does. Run as `python -m phi3v.bench.kernel_profile SPEC`, since a profiler slows all that comes after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .cases import PROMPT, Case

_CASE = Case(1344, 1344, 16, 16)
_LIMIT_S = 240.0
_LARGEST = 15
"""Kernels that are named; the others are added up."""
_NAME = 120
"""Characters of a kernel's name that are kept: the rest are template arguments."""

Profile = dict[str, Any]
"""{"prefill": Part, "decode": Part}, or {"error": ...}. A Part has `wall_s`, `kernels_s` and a list `kernels` of
{"name", "calls", "seconds"}, the longest first. Decode is of one token, the mean of several."""


def profile_kernels(model: Path, *, cuda_graph: bool = False) -> Profile:
    """Profile a prefill of 16 crops and its decode steps on the GPU, in a process of its own."""
    spec = json.dumps({"model": str(model), "cuda_graph": cuda_graph})
    command = [sys.executable, "-P", "-m", "phi3v.bench.kernel_profile", spec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {_LIMIT_S:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"]
        return {"error": said[-1]}
    found: Profile = json.loads(lines[-1])
    return found


def render_profiles(profiles: Mapping[str, Profile]) -> str:
    """Render profiles as Markdown: a table of kernels for each part."""
    lines: list[str] = []
    for label, profile in profiles.items():
        if "error" in profile:
            lines += ["", f"Profile of {label}: failed: {profile['error']}", ""]
            continue
        for part in ("prefill", "decode"):
            found = profile[part]
            title = f"{label}, {part}{' of one token' if part == 'decode' else ', 16 crops'}"
            lines += ["", f"Kernels of {title}: {1e3 * found['kernels_s']:.2f} of {1e3 * found['wall_s']:.2f} ms.", ""]
            lines += ["| ms | calls | kernel |", "|---|---|---|"]
            lines += [f"| {1e3 * k['seconds']:.3f} | {k['calls']:g} | `{k['name']}` |" for k in found["kernels"]]
    return "\n".join([*lines, ""]) if lines else ""


def main() -> None:
    """Profile one model, and print the Profile as the last line."""
    spec = json.loads(sys.argv[1])
    import torch

    from ..genai.backend import GenaiBackend
    from ..images.load import load_image
    from ..models.folder import ModelDir
    from ..sampling import TokenChooser

    if not torch.cuda.is_available():
        raise SystemExit("PyTorch here has no CUDA, and its profiler sees no kernels")
    backend = GenaiBackend(ModelDir.open(spec["model"]), "cuda", cuda_graph=spec["cuda_graph"])
    with tempfile.TemporaryDirectory() as scratch:
        image = load_image(_CASE.write_image(Path(scratch)))
    inputs = backend.preprocess(PROMPT, [image], _CASE.num_crops)
    prefill, decode = {}, {}
    for _ in range(2):  # the first pays for memory, plans and the profiler itself
        generation = backend.start(inputs, TokenChooser(), _CASE.new_tokens)
        prefill = _measure(generation.step, 1)
        for _ in range(2):  # a CUDA graph is captured meanwhile
            generation.step()
        decode = _measure(generation.step, _CASE.new_tokens - 3)
        generation.close()
    print(json.dumps({"prefill": prefill, "decode": decode}))


def _measure(act: Callable[[], object], times: int) -> dict[str, Any]:
    """Act so many times under the profiler: a Part of a Profile."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(times):
            act()
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
    calls: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        if event.self_device_time_total > 0:
            calls[event.key[:_NAME]] += event.count
            seconds[event.key[:_NAME]] += event.self_device_time_total / 1e6
    names = sorted(seconds, key=seconds.__getitem__, reverse=True)
    groups = {name: [name] for name in names[:_LARGEST]}
    if rest := names[_LARGEST:]:
        groups[f"{len(rest)} others"] = rest
    kernels = [
        {
            "name": title,
            "calls": sum(calls[name] for name in group) / times,
            "seconds": sum(seconds[name] for name in group) / times,
        }
        for title, group in groups.items()
    ]
    return {"wall_s": wall / times, "kernels_s": sum(seconds.values()) / times, "kernels": kernels}


if __name__ == "__main__":
    main()
