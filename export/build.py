"""From a checkpoint folder to a model folder, or to nothing: an interrupted build leaves no folder that loads."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..errors import DiskSpaceError, MissingDependencyError, ModelFolderError
from .precision import Recipe, folder_bytes, recipe
from .progress import Meter, Progress

try:
    from .checkpoint import Checkpoint
    from .config_files import copy_tokenizer, write_genai_config, write_processor_config, write_record
    from .decoder import import_builder, write_decoder
    from .embedding import write_embedding
    from .vision import write_vision
except ImportError as exc:
    raise MissingDependencyError(
        f'exporting needs {exc.name}, which is not installed; run `pip install "phi3v[cpu,export]"`'
    ) from exc


def export_model(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int4",
    device: str = "cpu",
    block_size: int = 32,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build the model folder `out` from a Hugging Face checkpoint folder of Phi-3-vision; returns `out`.

    `precision` is "int4", "fp16" or "fp32", `device` "cpu" or "cuda". Builds beside `out` and renames at the end.
    Raises CheckpointError, OptionError, DiskSpaceError, ModelFolderError (`out` is taken) or MissingDependencyError.
    """
    how, target = recipe(precision, device, block_size), Path(out).absolute()
    source = Checkpoint.open(Path(checkpoint))
    _check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    _check_disk(target.parent, folder_bytes(source.dims, how))
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    import_builder()
    try:
        partial.mkdir()
        _build(source, partial, how, Meter(source.nbytes, progress))
        _install(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Path(out)


def _build(source: Checkpoint, folder: Path, how: Recipe, meter: Meter) -> None:
    source.on_read = meter.add
    meter.enter("vision")
    write_vision(source, folder / "vision.onnx", dtype=how.dtype, quantization=how.vision)
    meter.enter("embedding")
    write_embedding(source, folder / "embedding.onnx", dtype=how.dtype, table_dtype=how.table_dtype)
    meter.enter("decoder")
    write_decoder(source, folder / "text.onnx", device=how.device, dtype=how.dtype, quantization=how.decoder)
    copy_tokenizer(source, folder)
    write_processor_config(folder, source.num_crops)
    write_genai_config(source, folder, device=how.device)
    write_record(
        source,
        folder,
        precision=how.precision,
        device=how.device,
        pixel_dtype=how.dtype.name,
        block_size=how.decoder.block_size if how.decoder else None,
    )


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_file() or target.is_symlink():
        raise ModelFolderError(f"{target} is no folder; give a new folder's name")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ModelFolderError(f"{target} is not empty; give another name, or overwrite it (--overwrite)")


def _check_disk(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DiskSpaceError(
            f"{parent} has {free / 1e9:.1f} GB free and the model needs {needed / 1e9:.1f} GB; "
            "free some space, or give a folder on another disk"
        )


def _remove_stale(target: Path) -> None:
    """Remove what builds of this folder left that were killed; a build that still runs keeps its own."""
    for folder in target.parent.glob(f".{target.name}.partial-*"):
        pid = folder.name.rpartition("-")[2]
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
