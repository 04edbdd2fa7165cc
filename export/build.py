"""Builds a model folder from a checkpoint folder; an interrupted build leaves nothing that loads."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskSpaceError, MissingDependencyError, ModelFolderError, OptionError
from ..models.folder import GENAI_CONFIG
from ..models.manifest import has_manifest
from .precision import Recipe, folder_bytes, recipe
from .progress import Meter, Progress


@contextmanager
def _extra_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise MissingDependencyError(
            f'exporting needs {exc.name}, which is not installed; run `pip install "phi3v[cpu,export]"`'
        ) from exc


with _extra_needed():
    from .calibrate import MatrixPlan, describe_plans, plan_prefill, planned_bytes
    from .calibration import Calibration, default_calibration
    from .checkpoint import Checkpoint
    from .config_files import copy_tokenizer, write_genai_config, write_manifest, write_processor_config
    from .decoder import write_decoder
    from .decoder_builder import import_builder
    from .dims import VISION
    from .embedding import write_embedding
    from .vision import write_vision


def export_model(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int4",
    device: str = "cpu",
    block_size: int | None = None,
    prefill: str = "int4",
    calibration: Calibration | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build the model folder `out` from a Hugging Face checkpoint folder of Phi-3-vision; returns `out`.

    `precision` is "int4", "fp16" or "fp32", `device` "cpu", "cuda", "webgpu" or "openvino", which takes the CPU's
    graphs; `block_size` None is 128 on the CPU, 32 on a GPU. `prefill` "int8" adds row-wise int8 weights to int4 for
    the CPU, which multiply prompts and images; `calibration`, prompts with their images, tells for which matrices, None
    takes some that are drawn. Builds beside `out` and renames at the end. `overwrite` replaces an older model folder,
    and nothing else.
    Raises CheckpointError, OptionError, PromptError (of `calibration`), DiskSpaceError, MissingDependencyError or
    ModelFolderError (`out` is taken or cannot be made).
    """
    how, target = recipe(precision, device, block_size, prefill), Path(out).absolute()
    if calibration is not None and not how.int8_prefill:
        raise OptionError(f"calibration is for prefill int8, and prefill is {prefill}; leave one of them out")
    source = Checkpoint.open(Path(checkpoint))
    with _usable(target):
        _check_target(target, overwrite, source.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
    _check_disk(target.parent, folder_bytes(source.dims, how))
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    with _extra_needed():
        import_builder()
    try:
        with _usable(target):
            partial.mkdir()
        _build(source, partial, how, progress, calibration)
        _check_target(target, overwrite, source.path)  # another build may have finished first
        _install(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Path(out)


def _build(
    source: Checkpoint, folder: Path, how: Recipe, progress: Progress | None, calibration: Calibration | None
) -> None:
    meter = Meter(source.nbytes, progress)
    plans: dict[str, MatrixPlan] = {}
    if how.int8_prefill:
        assert how.decoder is not None
        calibration = default_calibration() if calibration is None else calibration
        images = any(images for _, images in calibration)
        # Beyond the export's own reading, calibration reads all of it once, and the int8 weights the decoder's layers.
        read = planned_bytes(source, images=images) + planned_bytes(source, images=False)
        meter = Meter(source.nbytes + read, progress)
        source.on_read = meter.add
        meter.enter("calibration")
        plans = plan_prefill(source, decoder=how.decoder, vision=how.vision, calibration=calibration)
    rows = {name: plan.outliers for name, plan in plans.items() if plan.rows}
    source.on_read = meter.add
    meter.enter("vision")
    write_vision(source, folder / "vision.onnx", dtype=how.dtype, quantization=how.vision, rows=rows)
    meter.enter("embedding")
    types = {"dtype": how.dtype, "table_dtype": how.table_dtype}
    write_embedding(source, folder / "embedding.onnx", device=how.device, **types)
    meter.enter("decoder")
    write_decoder(
        *(source, folder / "text.onnx"),
        device=how.device,
        dtype=how.dtype,
        quantization=how.decoder,
        head=how.head,
        rows={name: outliers for name, outliers in rows.items() if not name.startswith(VISION)},
    )
    copy_tokenizer(source, folder)
    write_processor_config(folder, source.num_crops)
    write_genai_config(source, folder, device=how.device)
    write_manifest(
        source,
        folder,
        precision=how.precision,
        device=how.device,
        devices=how.devices,
        pixel_dtype=how.dtype.name,
        block_size=how.decoder.block_size if how.decoder else None,
        prefill=describe_plans(plans) if plans else None,
    )


def _check_target(target: Path, overwrite: bool, checkpoint: Path) -> None:
    """Refuse a target that holds anything but, when it may be overwritten, a model."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ModelFolderError(f"{target} is not a folder; give a new folder's name")
    for held, what in ((checkpoint.resolve(), "the checkpoint"), (Path.cwd(), "the current folder")):
        if held.is_relative_to(target.resolve()):
            raise ModelFolderError(f"{target} holds {what} {held}; give a new folder's name")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise ModelFolderError(f"{target} is not empty; give another name, or overwrite it (--overwrite)")
    if not has_manifest(target) and not (target / GENAI_CONFIG).is_file():
        raise ModelFolderError(f"{target} is not a model folder and is not overwritten; give another name or empty it")


@contextmanager
def _usable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ModelFolderError(f"{target} cannot be made ({exc.strerror}); give another folder's name") from exc


def _check_disk(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DiskSpaceError(
            f"{parent} has {free / 1e9:.1f} GB free and the model needs {needed / 1e9:.1f} GB; "
            "free some space, or give a folder on another disk"
        )


def _remove_stale(target: Path) -> None:
    """Remove what builds of this folder left that were killed; a build that still runs keeps its own."""
    for folder in target.parent.iterdir():
        pid = folder.name.removeprefix(f".{target.name}.partial-")
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _install(partial: Path, target: Path) -> None:
    """Put the finished folder in place; an old one gives way only now."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
