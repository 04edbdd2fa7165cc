"""Builds a model folder from a checkpoint folder; an interrupted build leaves nothing that loads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import MissingDependencyError, OptionError
from ..machine.install import install_line
from ..models.folder import BLOCK_GRAPHS
from .precision import Recipe, choose_prefill, folder_bytes, recipe
from .progress import Meter, Progress
from .target import new_folder


@contextmanager
def _extra_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise MissingDependencyError(
            f"exporting needs {exc.name}, which is not installed; run `{install_line('cpu', 'export')}`"
        ) from exc


with _extra_needed():
    from .calibrate import plan_prefill, planned_bytes
    from .calibration import Calibration, default_calibration
    from .checkpoint import Checkpoint
    from .config_files import copy_tokenizer, write_genai_config, write_manifest, write_processor_config
    from .decoder import write_decoder
    from .decoder_builder import import_builder
    from .dims import VISION
    from .embedding import write_embedding
    from .matrix_plan import MatrixPlan, describe_plans
    from .vision import write_vision


def export_model(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int4",
    device: str = "cpu",
    block_size: int | None = None,
    prefill: str = "auto",
    calibration: Calibration | None = None,
    keep: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build the model folder `out` from a Hugging Face checkpoint folder of Phi-3-vision; returns `out`.

    `precision` is "int4", "int8", "fp16" or "fp32", `device` "cpu", "cuda", "webgpu" or "openvino", which takes the
    CPU's graphs; `block_size` None is 128 on the CPU, 32 on a GPU. `prefill` "int8" adds row-wise int8 weights to int4
    for the CPU, which multiply prompts and images; "auto" does where this machine can use them. `calibration`, prompts
    with their images, tells for which matrices, None takes some that are drawn; those whose name in the checkpoint
    matches a pattern of `keep`, such as "*.down_proj.weight", stay in blocks. Builds beside `out` and renames at the
    end. `overwrite` replaces an older model folder, and nothing else.
    Raises CheckpointError, OptionError, PromptError (of `calibration`), DiskSpaceError, MissingDependencyError or
    ModelFolderError (`out` is taken or cannot be made).
    """
    how = recipe(precision, device, block_size, prefill)
    source = Checkpoint.open(Path(checkpoint))
    if prefill == "auto":
        how = recipe(precision, device, block_size, choose_prefill(source.dims, precision, device))
    if (calibration is not None or keep) and how.rows == "nothing":
        raise OptionError(
            f"calibration and keep are for prefill int8, and this is {precision} for {device} with prefill int4; "
            "ask for int8, or leave them out"
        )
    with new_folder(Path(out), source.path, folder_bytes(source.dims, how), overwrite=overwrite) as folder:
        with _extra_needed():
            import_builder()
        _build(source, folder, how, progress, calibration, keep)
    return Path(out)


def _build(
    source: Checkpoint,
    folder: Path,
    how: Recipe,
    progress: Progress | None,
    calibration: Calibration | None,
    keep: Sequence[str],
) -> None:
    meter = Meter(source.nbytes, progress)
    plans: dict[str, MatrixPlan] = {}
    if how.rows != "nothing":
        assert how.decoder is not None
        calibration = default_calibration() if calibration is None else calibration
        images = any(images for _, images in calibration)
        # Beyond the export's own reading, calibration reads all of it once, and the int8 weights the decoder's layers.
        read = planned_bytes(source, images=images)
        if how.rows == "prompts":
            read += planned_bytes(source, images=True)
        meter = Meter(source.nbytes + read, progress)
        source.on_read = meter.add
        meter.enter("calibration")
        plans = plan_prefill(source, decoder=how.decoder, vision=how.vision, calibration=calibration, keep=keep)
    rows = {name: plan.outliers for name, plan in plans.items() if plan.rows}
    source.on_read = meter.add
    meter.enter("vision")
    in_rows = [{name: rows[name] for name in rows if name.startswith(VISION) is vision} for vision in (True, False)]
    write_vision(source, folder / "vision.onnx", dtype=how.dtype, quantization=how.vision, rows=in_rows[0])
    if in_rows[0] and how.rows == "prompts":
        write_vision(source, folder / BLOCK_GRAPHS["vision"], dtype=how.dtype, quantization=how.vision)
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
        rows=in_rows[1],
        blocks_path=folder / BLOCK_GRAPHS["decoder"] if how.rows == "prompts" else None,
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
