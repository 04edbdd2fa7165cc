"""The whole CUDA table in one go: `python -m phi3v.bench.cuda_table OUT`.

Checks the machine, writes a checkpoint of the real size with random weights, exports int4 and fp16, measures ours with
and without CUDA graphs, genai's own loop and the PyTorch reference at 1, 4 and 16 crops, writes the record and the
report to OUT, and prints the table last. `--device cpu --size tiny` tries the same without a GPU.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import click

from ..errors import DeviceError, OptionError, Phi3VError
from ..export.build import export_model
from ..export.checkpoint import Checkpoint
from ..export.synthetic import full_dims, tiny_dims, write_random_checkpoint
from ..machine.device import cuda_status
from .cases import Case
from .record import Record
from .report import html_page, markdown
from .run import SubjectSpec, run

_CROPS = (1, 4, 16)


def subjects(folder: Path, device: Literal["cpu", "cuda"]) -> list[SubjectSpec]:
    """Everything the table compares, ours in int4 without a CUDA graph first: ratios are against it."""
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


def build(folder: Path, size: str, device: str) -> None:
    """Checkpoint and both model folders, where they are not there yet. Raises OptionError for one of another size."""
    checkpoint, dims = folder / "checkpoint", full_dims() if size == "full" else tiny_dims(context=4096)
    if not (checkpoint / "model.safetensors.index.json").exists():
        write_random_checkpoint(checkpoint, dims)
    elif Checkpoint.open(checkpoint).dims != dims:
        raise OptionError(f"{checkpoint} is of another size than --size {size}; give another folder with --models")
    for precision in ("int4", "fp16"):
        if not (folder / precision / "phi3v.json").exists():
            export_model(checkpoint, folder / precision, precision=precision, device=device)


def measure(folder: Path, device: Literal["cpu", "cuda"], *, new_tokens: int, rounds: int, out: Path) -> Record:
    """One interleaved run over all subjects and crops, each subject in a fresh process each turn."""
    cases = [Case(1344, 1344, num_crops, new_tokens) for num_crops in _CROPS]
    return run(
        subjects(folder, device),
        cases,
        rounds=rounds,
        resident=False,
        out=out,
        say=lambda line: click.echo(line, err=True),
    )


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--models", type=click.Path(path_type=Path), help="Where the models are or go. Default: OUT/models.")
@click.option("--size", type=click.Choice(["full", "tiny"]), default="full", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--new-tokens", type=click.IntRange(min=2), default=256, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--keep", is_flag=True, help="Keep the models (20 GB at full size); ones that were there before are always kept."
)
def main(
    out: Path, models: Path | None, size: str, device: Literal["cpu", "cuda"], new_tokens: int, rounds: int, keep: bool
) -> None:
    """Measure everything the CUDA table holds and write OUT/record.json, report.md and report.html."""
    if device == "cuda" and not (status := cuda_status()).usable:
        raise click.ClickException(str(DeviceError(f"CUDA is not usable: {status.reason}")))
    folder = models or out / "models"
    ours_to_remove = models is None and not keep and not folder.exists()
    try:
        build(folder, size, device)
        record = measure(folder, device, new_tokens=new_tokens, rounds=rounds, out=out / "record.json")
    except Phi3VError as exc:
        raise click.ClickException(str(exc)) from exc
    (out / "report.md").write_text(markdown(record), encoding="utf-8")
    (out / "report.html").write_text(html_page(record), encoding="utf-8")
    if ours_to_remove:
        shutil.rmtree(folder)
    click.echo(markdown(record))


if __name__ == "__main__":
    main()
