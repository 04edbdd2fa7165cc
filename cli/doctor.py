"""`phi3v doctor`: what works on this machine, what does not, and what to type to repair it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from phi3v.machine.install import install_line

from .check import Check
from .options import model_option

# One Identity node: the smallest model that makes a provider really load.
_IDENTITY_MODEL = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
_CLASHES = (("onnxruntime-genai", "onnxruntime-genai-cuda"), ("onnxruntime", "onnxruntime-gpu"))
_PACKAGES = ("numpy", "pillow", "tokenizers", "click", "rich")


@click.command(short_help="Check this machine.")
@model_option
@click.option("--nodes", is_flag=True, help="Also load the model on each device, and say which of its nodes run there.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, model: str | None, nodes: bool, as_json: bool) -> None:
    """Check this machine: packages, providers, each device and what it lacks, the model, telemetry.

    Exits with 1 if something must be repaired before a model can run.

    \b
    phi3v doctor
    phi3v doctor --model my-model --nodes
    """
    checks = list(examine(model, nodes=nodes))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        print_checks(checks)
    ctx.exit(any(check.status == "fail" for check in checks))


def examine(model: str | None = None, *, nodes: bool = False) -> Iterator[Check]:
    """Yield every check, in the order in which a person should read them. `nodes`: where those of the model run."""
    from .device_checks import check_plugins

    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs")
    yield from _check_packages()
    yield from _check_clashes()
    yield from _check_engine()
    yield _check_int8()
    yield from _check_cuda()
    yield from check_plugins()
    yield from _check_model(model, nodes)
    yield _check_telemetry()


def _check_packages() -> Iterator[Check]:
    from phi3v.machine.cuda import installed

    for name in _PACKAGES:
        if version := installed(name):
            yield Check(name, "ok", version)
        else:
            yield Check(name, "fail", "not installed", f"pip install {name}")


def _check_clashes() -> Iterator[Check]:
    from phi3v.machine.cuda import gpus, installed

    for plain, cuda in _CLASHES:
        found = [f"{name} {version}" for name in (plain, cuda) if (version := installed(name))]
        if len(found) == 2:
            remedy = f"pip uninstall -y {plain} {cuda} && {install_line('cuda' if gpus() else 'cpu')}"
            yield Check(plain, "fail", f"{' and '.join(found)} overwrite each other's files", remedy)
        elif found:
            yield Check(found[0].split()[0], "ok", found[0].split()[1])
        else:
            yield Check(plain, "fail", "not installed", install_line("cuda" if gpus() else "cpu"))


def _check_engine() -> Iterator[Check]:
    """Check that genai imports, and which providers really load, by loading a one-node model on each."""
    from phi3v.errors import MissingDependencyError
    from phi3v.genai.model import import_genai

    try:
        import_genai("cuda")
        import onnxruntime
    except MissingDependencyError as exc:
        yield Check("engine", "fail", "onnxruntime-genai does not load", str(exc))
        return
    except ImportError as exc:
        yield Check("engine", "fail", f"onnxruntime does not load: {exc}", install_line("cpu"))
        return
    onnxruntime.set_default_logger_severity(4)
    wanted = ["CPUExecutionProvider", "CUDAExecutionProvider"]
    for provider in (p for p in wanted if p in onnxruntime.get_available_providers()):
        if provider in onnxruntime.InferenceSession(_IDENTITY_MODEL, providers=[provider]).get_providers():
            yield Check(provider, "ok", "loads")
        else:
            yield Check(provider, "fail", "is compiled in but does not load", "see the CUDA lines below")


def _check_int8() -> Check:
    """Whether prompts may be multiplied in int8 on this processor, as folders with int8 prefill do."""
    from phi3v.machine.int8_check import find_int8_fault, find_int8_units

    try:
        fault = find_int8_fault()
    except ImportError:
        return Check("int8 prefill", "note", "not tried: onnxruntime does not load")
    if fault:
        return Check("int8 prefill", "note", f"not used here: {fault}; prompts take the weights of single tokens")
    units = find_int8_units()
    return Check("int8 prefill", "ok", "products are exact" + (f" ({', '.join(units)})" if units else ""))


def _check_cuda() -> Iterator[Check]:
    from phi3v.errors import MissingDependencyError
    from phi3v.machine.cuda import (
        CUDA_LIBRARIES,
        find_problem,
        gpus,
        install_command,
        installed,
        missing_cuda_libraries,
    )
    from phi3v.machine.device_table import TABLE

    found = gpus()
    for gpu in found:
        about = f"{gpu.name}, {gpu.memory_bytes >> 20} MiB, compute capability {gpu.compute_capability}"
        yield Check("gpu", "ok", f"{about}, driver for CUDA {gpu.driver_cuda}")
    if not installed("onnxruntime-genai-cuda"):
        hint = install_command(TABLE["cuda"]) if found else ""
        yield Check("cuda", "note", "the CUDA build is not installed; models run on the CPU", hint)
        return
    if found and (problem := find_problem(found[0])):
        reason, _, remedy = problem.partition("; ")
        yield Check("gpu", "fail", reason, remedy)
    if not found:
        yield Check("gpu", "fail", "no NVIDIA driver with a GPU answers", "check nvidia-smi; or install 'phi3v[cpu]'")
    try:
        missing = missing_cuda_libraries()
    except MissingDependencyError as exc:
        yield Check("cuda", "fail", str(exc), install_line("cuda"))
        return
    for library in missing:
        yield Check(library, "fail", "cannot be loaded", f"pip install {CUDA_LIBRARIES[library]}")
    if not missing:
        yield Check("cuda", "ok", f"all {len(CUDA_LIBRARIES)} CUDA libraries load")


def _check_model(model: str | None, nodes: bool) -> Iterator[Check]:
    from phi3v import Phi3VError
    from phi3v.errors import OptionError
    from phi3v.machine.device import wanted_device
    from phi3v.machine.device_table import DEVICE_VARIABLE
    from phi3v.models.folder import MODEL_VARIABLE, ModelDir
    from phi3v.models.local import resolve_model

    from .device_checks import check_placement

    title = "model" if model else "default model"
    try:
        device = wanted_device(None)
    except OptionError as exc:
        yield Check("device", "fail", str(exc), f"unset {DEVICE_VARIABLE}")
        device = "auto"
    try:
        folder = ModelDir.open(resolve_model(model, device))
    except Phi3VError as exc:
        variable = None if model else os.environ.get(MODEL_VARIABLE)  # no model is an error only if one was named
        remedy = f"unset {MODEL_VARIABLE}" if variable else ""
        yield Check(title, "fail" if model or variable else "note", str(exc), remedy)
        return
    devices = ", ".join(folder.devices)
    prefill = " with int8 prefill" if folder.block_graphs else ""
    what = f"{folder.name}: {folder.path} ({folder.precision or 'published build'}{prefill}, for {devices})"
    yield Check(title, "ok", f"{what}; {folder.name} {folder.about}" if folder.about else what)
    if nodes:
        yield from check_placement(folder)


def _check_telemetry() -> Check:
    from phi3v.machine.telemetry import TELEMETRY_OPT_IN, telemetry_wanted

    if telemetry_wanted():
        return Check("telemetry", "note", f"ON: {TELEMETRY_OPT_IN}=1 is set", f"unset {TELEMETRY_OPT_IN}")
    return Check("telemetry", "ok", "off: nothing is sent anywhere")


def print_checks(checks: list[Check]) -> None:
    """Print a table on stdout, each remedy under its finding."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    folded = Column(overflow="fold")  # a long path is wrapped, not cut off
    table = Table("", "", folded, box=None, show_header=False, pad_edge=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fail": "[red]FAIL[/]"}
    for check in checks:
        # escape: the remedies hold square brackets of pip's own
        detail = escape(check.detail) + (f"\n[bold]{escape(check.remedy)}[/]" if check.remedy else "")
        table.add_row(marks[check.status], check.name, detail)
    Console(file=sys.stdout).print(table)
