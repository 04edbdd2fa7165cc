"""The whole CUDA table: `phi3v bench cuda-table OUT`, in two steps that can be run apart.

"build" writes a checkpoint of the real size with random weights and exports int4 and fp16. "measure" compares ours with
and without CUDA graphs and with other kernels, genai's own loop and the PyTorch reference at 1, 4 and 16 crops, adds a
profile, and writes the record and the report to OUT. It is for machines that are lent by the minute: the record is
written after every answer, a subject that fails is noted and left out, and time that is up ends the run. The device
"cpu" and the size "tiny" try the same without a GPU.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from ..errors import DeviceError, MissingDependencyError, OptionError
from ..machine.cuda import cuda_status
from ..models.manifest import has_manifest
from .cases import Case
from .extras import require_extra
from .kernel_profile import profile_kernels, render_profiles
from .program import run_command
from .record import Record
from .report import render_html, render_markdown
from .run import SubjectSpec, run

CROPS = (1, 4, 16)
_CUDNN = 8
"""The bit of `sdpa_kernel` that asks for cuDNN's attention, which ONNX Runtime would choose on such GPUs."""

Step = Literal["all", "build", "measure"]


def write_table(
    out: Path,
    *,
    step: Step = "all",
    models: Path | None = None,
    size: str = "full",
    device: Literal["cpu", "cuda"] = "cuda",
    crops: Sequence[int] = CROPS,
    new_tokens: int = 256,
    rounds: int = 5,
    minutes: float = math.inf,
    keep: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Record | None:
    """Do one step or both, and write OUT/record.json, report.md and report.html. None if nothing was to be measured.

    `models` None puts the models into OUT/models; unless `keep`, those that were not there before are removed. After
    `minutes` of measuring no answer is begun. Raises DeviceError when CUDA is wanted and not usable, OptionError for
    models of another size.
    """
    if step != "build" and device == "cuda" and not (status := cuda_status()).usable:
        raise DeviceError(f"CUDA is not usable: {status.reason}")
    folder = models or out / "models"
    ours_to_remove = models is None and not keep and step == "all" and not folder.exists()
    if step != "measure":
        build(folder, size, device, say)
    if step == "build":
        return None
    record = run(
        list_subjects(folder, device),
        [Case(1344, 1344, num_crops, new_tokens) for num_crops in crops],
        rounds=rounds,
        resident=None if device == "cuda" else False,
        minutes=minutes,
        keep_going=True,
        out=out / "record.json",
        say=say,
    )
    profiles = {}
    if device == "cuda":
        for label, cuda_graph in (("int4", False), ("int4-graph", True)):
            say(f"profiling {label}")
            profiles[label] = profile_kernels(folder / "int4", cuda_graph=cuda_graph)
        record.set("profiles", profiles)
    (out / "report.md").write_text(render_markdown(record) + render_profiles(profiles), encoding="utf-8")
    try:
        require_extra("bench", "matplotlib")
        (out / "report.html").write_text(render_html(record), encoding="utf-8")
    except MissingDependencyError as exc:
        say(f"no report.html: {exc}")
    if ours_to_remove:
        shutil.rmtree(folder)
    return record


def build(folder: Path, size: str, device: str, say: Callable[[str], None] = lambda line: None) -> None:
    """Make the checkpoint and both model folders unless they are there. Raises OptionError for another size."""
    from ..export.build import export_model
    from ..export.checkpoint import Checkpoint
    from ..export.synthetic import full_dims, tiny_dims, write_random_checkpoint

    checkpoint, dims = folder / "checkpoint", full_dims() if size == "full" else tiny_dims(context=4096)
    began = time.monotonic()
    if not (checkpoint / "model.safetensors.index.json").exists():
        write_random_checkpoint(checkpoint, dims)
        say(f"wrote {checkpoint} in {time.monotonic() - began:.0f} s")
    elif Checkpoint.open(checkpoint).dims != dims:
        raise OptionError(f"{checkpoint} is of another size than --size {size}; give another folder with --models")
    missing = [precision for precision in ("int4", "fp16") if not has_manifest(folder / precision)]
    began = time.monotonic()
    # An export keeps one core busy. Not forked: what an engine left in this process would come along.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        exports = [
            processes.submit(export_model, checkpoint, folder / precision, precision=precision, device=device)
            for precision in missing
        ]
        for export in exports:
            export.result()
    if missing:
        say(f"exported {' and '.join(missing)} in {time.monotonic() - began:.0f} s")


def list_subjects(folder: Path, device: Literal["cpu", "cuda"]) -> list[SubjectSpec]:
    """List what the table compares. Ours in int4 without a CUDA graph comes first: ratios are against it."""
    int4, fp16, checkpoint = folder / "int4", folder / "fp16", folder / "checkpoint"
    ours = partial(SubjectSpec, subject="ours", device=device)
    if device == "cpu":
        return [
            ours("int4", model=int4),
            ours("fp16", model=fp16),
            SubjectSpec("genai-int4", "genai", int4, device),
            SubjectSpec("torch-fp32", "torch-fp32", checkpoint, device),
        ]
    return [
        ours("int4", model=int4),
        ours("int4-graph", model=int4, cuda_graph=True),
        ours("int4-cudnn", model=int4, sdpa_kernel=_CUDNN),
        ours("int4-cudnn-graph", model=int4, sdpa_kernel=_CUDNN, cuda_graph=True),
        ours("int4-fpA-intB-graph", model=int4, cuda_graph=True, environment={"ORT_FPA_INTB_GEMM": "1"}),
        ours("fp16", model=fp16),
        ours("fp16-graph", model=fp16, cuda_graph=True),
        SubjectSpec("genai-int4", "genai", int4, device),
        SubjectSpec("torch-fp16", "torch-fp16", checkpoint, device),
        SubjectSpec("torch-bf16", "torch-bf16", checkpoint, device),
    ]


if __name__ == "__main__":
    run_command("cuda-table")
