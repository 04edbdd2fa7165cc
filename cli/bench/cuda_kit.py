"""`phi3v bench cuda-kit`: what a lent GPU machine needs for the CUDA table."""

from __future__ import annotations

from pathlib import Path

import click

from .options import existing_path_type, path_type, say


@click.command(short_help="Pack the CUDA table for a machine without a package index.")
@click.argument("out", type=path_type)
@click.option(
    "--arch",
    type=click.IntRange(min=10),
    required=True,
    help="The GPU's compute capability without the dot: 90 for an H100 or H200, 80 for an A100.",
)
@click.option("--python", default="3.12", show_default=True, help="The version of Python there.")
@click.option(
    "--limit-mib",
    type=click.FloatRange(min=0),
    default=64,
    show_default=True,
    help="Write nothing if the kit is larger.",
)
@click.option(
    "--without",
    type=click.Choice(["nano", "tree"]),
    multiple=True,
    help="Leave out nano, or this repository; may be repeated.",
)
@click.option("--wheels", type=existing_path_type, help="A folder that holds both wheels. Default: pip downloads them.")
def cuda_kit(
    out: Path, arch: int, python: str, limit_mib: float, without: tuple[str, ...], wheels: Path | None
) -> None:
    """Pack ONNX Runtime's and genai's CUDA builds, trimmed to one GPU architecture, and this repository into OUT.

    Copy OUT to a machine with an NVIDIA GPU, Python, PyTorch and onnxruntime, and start OUT/run RESULTS there. It
    builds the models, runs the tests for a real GPU and measures, within nine minutes. Nothing is downloaded there.

    \b
    phi3v bench cuda-kit .cuda-kit --arch 90
    """
    from phi3v.bench.cuda_kit import render_size, render_sizes, write_kit

    sizes = write_kit(out, arch=arch, python=python, limit_mib=limit_mib, without=without, wheels=wheels, say=say)
    click.echo(f"{out}: {render_size(sum(sizes.values()))} ({render_sizes(sizes)})", err=True)
    click.echo(str(out / "run"))
