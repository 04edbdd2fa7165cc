"""Speed and loss of the decoder in each quantisation: `phi3v bench study export-settings CHECKPOINT OUT`.

Builds one model folder per setting (vision and embedding are shared), measures them side by side, and compares the
logits of every prompt position with the fp32 reference's. The exporter's default for the CPU comes from this table.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...export.build import export_model
from ...export.checkpoint import Checkpoint
from ...export.decoder import write_decoder
from ...export.quantize import BlockQuantization
from ...images.load import load_image
from ...models.manifest import MANIFEST, Manifest, has_manifest
from ..cases import PROMPT, Case, make_jpeg
from ..parity import compute_logits, measure_closeness
from ..program import run_command
from ..record import Record
from ..reference import ReferenceModel
from ..run import SubjectSpec, run
from ..statistics import Ratio, Summary

SETTINGS: dict[str, tuple[BlockQuantization, BlockQuantization | None]] = {
    f"int{bits} block {block}": (BlockQuantization(bits, block, accuracy_level=4), None)
    for bits, block in ((4, 32), (4, 64), (4, 128), (4, 256), (8, 32), (8, 128))
} | {
    f"int4 block {block}, int8 head": (BlockQuantization(4, block, 4), BlockQuantization(8, 128, 4))
    for block in (32, 128)
}
"""Decoder and, where it differs, the matrix before the logits.

accuracy_level 4 lets the CPU multiply in int8; lower levels dequantise to fp32 first.
"""


def write_table(
    checkpoint: Path,
    out: Path,
    case: Case,
    *,
    rounds: int = 7,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Build every setting under OUT/models, measure, and write OUT/record.json and OUT/table.md; return the table."""
    (out / "models").mkdir(parents=True, exist_ok=True)
    folders = build(checkpoint, out / "models")
    specs = [SubjectSpec(name, "ours", folder) for name, folder in folders.items()]
    record = run(specs, [case], rounds=rounds, out=out / "record.json", say=say)
    text = format_table(record, measure_losses(checkpoint, folders, 1))
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    return text


def build(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Build one model folder per setting. All files but the decoder's are shared by hard links."""
    base = folder / "base"
    if not base.exists():
        export_model(checkpoint, base)
    made = {}
    for name, (decoder, head) in SETTINGS.items():
        made[name] = target = folder / name
        if has_manifest(target):
            continue
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in base.iterdir():
            if not file.name.startswith("text.onnx") and file.name != MANIFEST:
                os.link(file, target / file.name)
        source = Checkpoint.open(checkpoint)
        write_decoder(source, target / "text.onnx", device="cpu", dtype=np.float32, quantization=decoder, head=head)
        manifest = Manifest.read(base)
        manifest = replace(manifest, extra={**manifest.extra, "block_size": decoder.block_size})
        manifest.with_files_of(target).write(target)
    return made


def format_table(record: Record, loss: dict[str, dict[str, float]]) -> str:
    """Write speed against the first setting, by round, and distance from fp32 as Markdown."""
    case, first = record.cases[0], record.subjects[0]
    lines = [
        "| decoder | bytes | prefill | decode | cosine, mean | cosine, least | KL, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in record.subjects:
        speeds = []
        for metric in ("prefill_s", "tpot_s"):
            ratio = Ratio.of(record.values(first, case, metric), record.values(name, case, metric))
            assert ratio is not None
            speeds.append(f"{ratio.median:.2f}x ({ratio.least:.2f} to {ratio.largest:.2f})")
        size = record.content["models"][name]["bytes"] / 1e9
        values = loss[name]
        lines.append(
            f"| {name} | {size:.2f} GB | {' | '.join(speeds)} | {values['cosine_mean']:.4f} | "
            f"{values['cosine_least']:.4f} | {values['kl_mean']:.4f} |"
        )
    prefill = Summary.of(list(record.values(first, case, "prefill_s").values())).median
    rate = 1 / Summary.of(list(record.values(first, case, "tpot_s").values())).median
    return "\n".join(
        [*lines, "", f"{first}: prefill with vision {prefill:.2f} s, decode {rate:.1f} tokens/s, case {case}"]
    )


def measure_losses(checkpoint: Path, folders: dict[str, Path], num_crops: int) -> dict[str, dict[str, float]]:
    """Measure the distance of each folder's logits from the fp32 reference's."""
    reference = ReferenceModel(Checkpoint.open(checkpoint))
    inputs = reference.preprocess(PROMPT, [load_image(make_jpeg(640, 400))], num_crops)
    expected = reference.logits(inputs).numpy()
    del reference
    return {name: measure_closeness(expected, compute_logits(folder, inputs)) for name, folder in folders.items()}


if __name__ == "__main__":
    run_command("study", "export-settings")
