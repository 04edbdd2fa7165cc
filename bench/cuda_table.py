"""The whole CUDA table in one go: `phi3v bench cuda-table OUT`.

Checks the machine, writes a checkpoint of the real size with random weights, exports int4 and fp16, measures ours with
and without CUDA graphs, genai's own loop and the PyTorch reference at 1, 4 and 16 crops, and writes the record and the
report to OUT. The device "cpu" and the size "tiny" try the same without a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..errors import DeviceError, OptionError
from ..export.build import export_model
from ..export.checkpoint import Checkpoint
from ..export.synthetic import full_dims, tiny_dims, write_random_checkpoint
from ..machine.cuda import cuda_status
from ..models.manifest import has_manifest
from .cases import Case
from .program import run_command
from .record import Record
from .report import render_html, render_markdown
from .run import SubjectSpec, run

_CROPS = (1, 4, 16)


def write_table(
    out: Path,
    *,
    models: Path | None = None,
    size: str = "full",
    device: Literal["cpu", "cuda"] = "cuda",
    new_tokens: int = 256,
    rounds: int = 5,
    keep: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure everything the table holds, and write OUT/record.json, report.md and report.html.

    `models` None puts the models into OUT/models; unless `keep`, those that were not there before are removed.
    Raises DeviceError when CUDA is wanted and not usable, OptionError for models of another size.
    """
    if device == "cuda" and not (status := cuda_status()).usable:
        raise DeviceError(f"CUDA is not usable: {status.reason}")
    folder = models or out / "models"
    ours_to_remove = models is None and not keep and not folder.exists()
    build(folder, size, device)
    # One process per turn, so that every subject has the GPU's memory to itself.
    record = run(
        list_subjects(folder, device),
        [Case(1344, 1344, num_crops, new_tokens) for num_crops in _CROPS],
        rounds=rounds,
        resident=False,
        out=out / "record.json",
        say=say,
    )
    (out / "report.md").write_text(render_markdown(record), encoding="utf-8")
    (out / "report.html").write_text(render_html(record), encoding="utf-8")
    if ours_to_remove:
        shutil.rmtree(folder)
    return record


def build(folder: Path, size: str, device: str) -> None:
    """Make the checkpoint and both model folders unless they are there. Raises OptionError for another size."""
    checkpoint, dims = folder / "checkpoint", full_dims() if size == "full" else tiny_dims(context=4096)
    if not (checkpoint / "model.safetensors.index.json").exists():
        write_random_checkpoint(checkpoint, dims)
    elif Checkpoint.open(checkpoint).dims != dims:
        raise OptionError(f"{checkpoint} is of another size than --size {size}; give another folder with --models")
    for precision in ("int4", "fp16"):
        if not has_manifest(folder / precision):
            export_model(checkpoint, folder / precision, precision=precision, device=device)


def list_subjects(folder: Path, device: Literal["cpu", "cuda"]) -> list[SubjectSpec]:
    """List what the table compares. Ours in int4 without a CUDA graph comes first: ratios are against it."""
    int4, fp16, checkpoint = folder / "int4", folder / "fp16", folder / "checkpoint"
    specs = [
        SubjectSpec("int4", "ours", int4, device),
        SubjectSpec("int4-graph", "ours", int4, device, cuda_graph=True),
        SubjectSpec("fp16", "ours", fp16, device),
        SubjectSpec("fp16-graph", "ours", fp16, device, cuda_graph=True),
        SubjectSpec("genai-int4", "genai", int4, device),
        SubjectSpec("genai-fp16", "genai", fp16, device),
    ]
    if device == "cuda":
        return [*specs, *(SubjectSpec(name, name, checkpoint, device) for name in ("torch-fp16", "torch-bf16"))]
    ungraphed = [spec for spec in specs if not spec.cuda_graph]
    return [*ungraphed, SubjectSpec("torch-fp32", "torch-fp32", checkpoint, device)]


if __name__ == "__main__":
    run_command("cuda-table")
