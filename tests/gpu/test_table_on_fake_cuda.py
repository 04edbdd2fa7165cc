"""The whole CUDA table on a CUDA made of nothing: its values mean nothing, but it is complete."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.torch]

IN_16_CROPS = "4:17,8:2509"
"""What the vision graph reads from the device of an image in 16 crops: the crops, and its tokens."""

WITHOUT_TORCH = ["torch-fp16", "torch-bf16"]
"""Subjects that fail in the environment, which has no PyTorch."""


@pytest.fixture(scope="module")
def table(
    fake_cuda: Path, make_environment: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from phi3v.bench.cuda_table import build

    folder = tmp_path_factory.mktemp("table")
    build(folder / "models", "tiny", "cuda")
    program = [str(fake_cuda / "bin" / "python"), "-c", "from phi3v.cli.main import main; main()"]
    options = ["--size", "tiny", "--step", "measure", "--models", str(folder / "models"), "--crops", "16"]
    brief = ["--new-tokens", "4", "--rounds", "1", "--minutes", "5"]
    done = subprocess.run(
        [*program, "bench", "cuda-table", str(folder / "out"), *options, *brief],
        env={**make_environment(), "FAKE_CUDA_BRINGS": IN_16_CROPS},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


def test_every_subject_is_measured_or_says_why_not(table: Path) -> None:
    record = json.loads((table / "record.json").read_text())
    failed = {failure["subject"]: failure["error"] for failure in record["failures"]}
    assert list(failed) == WITHOUT_TORCH
    assert all("No module named 'torch'" in error for error in failed.values())
    measured = {sample["subject"] for sample in record["samples"] if not sample["warmup"]}
    assert measured == set(record["models"]) - set(failed)
    assert {"int4", "int4-graph", "int4-cudnn-graph", "fp16-graph", "genai-int4"} <= measured


def test_the_report_names_what_failed(table: Path) -> None:
    report = (table / "report.md").read_text()
    assert all(f"{subject} failed" in report for subject in WITHOUT_TORCH)
    assert "Profile of int4-graph: failed: ModuleNotFoundError: No module named 'torch'" in report
