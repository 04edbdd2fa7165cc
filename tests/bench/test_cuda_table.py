"""The script behind the CUDA table, tried on the CPU with everything but the GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phi3v.bench.cuda_table import build, list_subjects, write_table
from phi3v.bench.kernel_profile import render_profiles
from phi3v.bench.record import Record
from phi3v.errors import OptionError
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.machine.cuda import cuda_status
from phi3v.models.folder import ModelDir

pytestmark = pytest.mark.torch

COMMAND = [sys.executable, "-m", "phi3v.bench.cuda_table"]


@pytest.mark.slow
def test_one_command_builds_measures_and_reports(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--size", "tiny", "--new-tokens", "4", "--rounds", "1"]
    done = subprocess.run([*COMMAND, str(tmp_path / "out"), *options], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    record = Record.read(tmp_path / "out" / "record.json")
    assert record.subjects == ["int4", "fp16", "genai-int4", "torch-fp32"]
    assert len(record.cases) == 3
    assert done.stdout.startswith("# phi3v benchmark")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["record.json", "report.html", "report.md"]


def test_on_a_gpu_graphs_and_half_precision_references_are_compared(tmp_path: Path) -> None:
    for name in ("int4", "fp16", "checkpoint"):
        (tmp_path / name).mkdir()
    labels = [spec.label for spec in list_subjects(tmp_path, "cuda")]
    assert labels == [
        *("int4", "int4-graph", "int4-cudnn", "int4-cudnn-graph", "int4-fpA-intB-graph"),
        *("fp16", "fp16-graph", "genai-int4", "torch-fp16", "torch-bf16"),
    ]


def test_models_of_another_size_are_not_measured_by_mistake(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint", tiny_dims(layers=1))
    with pytest.raises(OptionError, match="another size"):
        build(tmp_path, "full", "cpu")


def test_models_are_built_without_a_gpu(tmp_path: Path) -> None:
    assert write_table(tmp_path / "out", step="build", models=tmp_path / "models", size="tiny") is None
    for precision in ("int4", "fp16"):
        assert ModelDir.open(tmp_path / "models" / precision).built_for == "cuda"
    assert not (tmp_path / "out").exists()


def test_profiles_are_rendered_with_what_failed() -> None:
    part = {"wall_s": 0.003, "kernels_s": 0.002, "kernels": [{"name": "gemm", "calls": 64, "seconds": 0.0015}]}
    text = render_profiles({"plain": {"prefill": part, "decode": part}, "graph": {"error": "no CUDA"}})
    assert "Kernels of plain, prefill, 16 crops: 2.00 of 3.00 ms." in text
    assert "| 1.500 | 64 | `gemm` |" in text
    assert "Profile of graph: failed: no CUDA" in text
    assert render_profiles({}) == ""


@pytest.mark.skipif(cuda_status().usable, reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, str(tmp_path / "out")], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "CUDA is not usable" in done.stderr
    assert not (tmp_path / "out").exists()
