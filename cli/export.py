"""`phi3v export`: a Hugging Face checkpoint folder -> a model folder."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from .options import block_size_option, build_device_option, precision_option, prefill_option
from .progress import progress_bar


@click.command(short_help="Build a model folder from a checkpoint.")
@click.argument("checkpoint", required=False)
@click.argument("out", required=False)
@click.option(
    "--from",
    "model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Add int8 prefill to this model folder, an int4 build for the CPU, in place of building from a checkpoint.",
)
@precision_option
@build_device_option
@block_size_option
@prefill_option
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Images, each with its question in a text file of the same name, to choose int8's matrices on. "
    "Default: a few that are drawn.",
)
@click.option(
    "--keep", multiple=True, metavar="PATTERN", help='Leave matrices out of int8, such as "*.down_proj.weight".'
)
@click.option("--overwrite", is_flag=True, help="If OUT is a model already, replace it once the build is complete.")
@click.pass_context
def export(
    ctx: click.Context,
    checkpoint: str | None,
    out: str | None,
    model: Path | None,
    precision: str,
    device: str,
    block_size: str | None,
    prefill: str,
    calibrate: Path | None,
    keep: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Build the model folder OUT from a Hugging Face CHECKPOINT folder of Phi-3-vision (safetensors).

    Works layer by layer in about 1 GB of memory. An interrupted build leaves nothing behind that would load.
    With --from, the folder is made of a model folder, such as a pulled one; that needs no checkpoint and no PyTorch.

    \b
    phi3v export Phi-3-vision-128k-instruct my-model
    phi3v export --from my-int4-model my-faster-model
    """
    if model is not None:
        if checkpoint is None or out is not None:
            raise click.UsageError("--from takes one more folder: phi3v export --from MODEL OUT")
        for name in ("precision", "device", "block_size"):
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} is the model's own with --from; leave it out")
        if prefill == "int4":
            raise click.UsageError("--from adds int8 prefill; leave --prefill int4 out")
        _add_int8_prefill(model, checkpoint, calibrate, keep, overwrite)
        return
    if checkpoint is None or out is None:
        raise click.UsageError("give both folders: phi3v export CHECKPOINT OUT")
    from phi3v.export.build import export_model
    from phi3v.export.calibration import read_calibration

    with progress_bar() as progress:
        export_model(
            checkpoint,
            out,
            precision=precision,
            device=device,
            block_size=int(block_size) if block_size else None,
            prefill=prefill,
            calibration=read_calibration(calibrate) if calibrate else None,
            keep=keep,
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(out)


def _add_int8_prefill(model: Path, out: str, calibrate: Path | None, keep: tuple[str, ...], overwrite: bool) -> None:
    from phi3v.export.calibration import read_calibration
    from phi3v.export.from_model import add_int8_prefill
    from phi3v.models.local import resolve_model

    calibration = read_calibration(calibrate) if calibrate else None
    with progress_bar() as progress:
        add_int8_prefill(
            resolve_model(str(model)), out, calibration=calibration, keep=keep, overwrite=overwrite, progress=progress
        )
    click.echo(out)
