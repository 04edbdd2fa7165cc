"""The group `phi3v bench` and the commands in it."""

from __future__ import annotations

import click

from .batch import batch
from .compare import compare
from .cuda_kit import cuda_kit
from .cuda_table import cuda_table
from .export_settings import export_settings
from .gate import gate
from .growth import growth
from .heartbeat import heartbeat
from .load import load
from .nano_settings import nano_settings
from .openvino_folder import openvino_folder
from .parity import parity
from .ray import ray_command
from .run import run
from .session import session
from .synth import synth


@click.group(short_help="Measure and compare models.")
def bench() -> None:
    """Measure models side by side, compare records, check parity with the PyTorch reference."""


@bench.group(short_help="Repeat the experiments behind the defaults.")
def study() -> None:
    """Repeat the experiments behind today's defaults."""


for _command in (
    run,
    compare,
    gate,
    parity,
    synth,
    session,
    batch,
    growth,
    heartbeat,
    load,
    ray_command,
    cuda_table,
    cuda_kit,
    openvino_folder,
):
    bench.add_command(_command)
for _command in (export_settings, nano_settings):
    study.add_command(_command)
