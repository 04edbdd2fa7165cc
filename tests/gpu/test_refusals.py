"""On a CUDA made of nothing: each machine on which a GPU cannot be used is told why, and what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import Probe

pytestmark = [pytest.mark.slow, pytest.mark.torch]

MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "a driver for CUDA 12.8": (
        {"env": {"FAKE_CUDA_DRIVER": "12080"}},
        "the driver of Fake GPU 0 runs CUDA 12.8 and older, and ONNX Runtime needs 13.0; install driver 580 or newer",
    ),
    "sm 61": (
        {"env": {"FAKE_CUDA_SM": "61"}},
        "Fake GPU 0 has compute capability 6.1, and ONNX Runtime's CUDA build has",
    ),
    "sm 70": (
        {"env": {"FAKE_CUDA_SM": "70"}},
        "Fake GPU 0 has compute capability 7.0, and ONNX Runtime's CUDA build has",
    ),
    "sm 100": (
        {"env": {"FAKE_CUDA_SM": "100"}},
        "Fake GPU 0 has compute capability 10.0, and ONNX Runtime's CUDA build",
    ),
    "no GPU": (
        {"env": {"FAKE_CUDA_SM": ""}},
        "no NVIDIA driver with a GPU answers (libcuda.so.1); check `nvidia-smi -L`",
    ),
    "no driver": ({"driver": False}, "no NVIDIA driver with a GPU answers (libcuda.so.1); check `nvidia-smi -L`"),
}


@pytest.mark.parametrize(("machine", "said"), MACHINES.values(), ids=MACHINES)
def test_a_load_says_why_cuda_cannot_be_used(
    run_probe: Probe, folder: Path, machine: dict[str, Any], said: str
) -> None:
    assert run_probe("fail", folder=folder, **machine).startswith(f"DeviceError: CUDA is not usable: {said}")
    assert run_probe("fail", folder=folder, device="auto", **machine).startswith(
        f"DeviceError: this model folder was built for CUDA, which is not usable: {said}"
    )


@pytest.mark.parametrize(("machine", "said"), MACHINES.values(), ids=MACHINES)
def test_doctor_finds_the_same(run_probe: Probe, machine: dict[str, Any], said: str) -> None:
    failed = [check for check in run_probe("doctor", **machine) if check["status"] == "fail"]
    words = said.split("; ")[0].split(" and ")[0].split(" answers")[0].split(",")[0]
    assert any(words in f"{check['name']} {check['detail']}" for check in failed), failed
    assert any(check["remedy"] for check in failed)


def test_missing_nvidia_wheels_are_named(run_probe: Probe, folder: Path) -> None:
    """A machine with a system CUDA may have one or the other library."""
    message = run_probe("fail", folder=folder, wheels=False)
    assert re.fullmatch(
        r"DeviceError: .*: (lib\w+\.so\.\d+,? )+cannot be loaded; run: pip install( nvidia-[\w-]+)+", message
    )
    missing = {check["name"]: check for check in run_probe("doctor", wheels=False) if check["name"].startswith("lib")}
    assert missing["libcublas.so.13"]["remedy"] == "pip install nvidia-cublas"


def test_doctor_finds_nothing_wrong_with_a_gpu_that_can_be_used(run_probe: Probe) -> None:
    found = {check["name"]: check for check in run_probe("doctor")}
    assert found["gpu"]["detail"] == "Fake GPU 0, 81920 MiB, compute capability 9.0, driver for CUDA 13.0"
    assert {found[name]["status"] for name in ("gpu", "cuda", "CUDAExecutionProvider")} == {"ok"}


@pytest.mark.parametrize(
    ("device", "env", "said"),
    [
        ("cuda", {"FAKE_CUDA_SM": "90,70"}, ""),
        ("cuda", {"FAKE_CUDA_SM": "70,90"}, "Fake GPU 0 has compute capability 7.0"),
        ("cuda:1", {"FAKE_CUDA_SM": "70,90"}, ""),
        ("cuda:1", {"FAKE_CUDA_SM": "90,70"}, "Fake GPU 1 has compute capability 7.0"),
        ("cuda:2", {"FAKE_CUDA_SM": "90,75"}, "no NVIDIA driver with a GPU answers under number 2"),
        ("cuda:0", {"FAKE_CUDA_SM": "70,90", "CUDA_VISIBLE_DEVICES": "1"}, ""),
    ],
)
def test_the_gpu_that_is_chosen_is_the_one_that_is_judged(
    run_probe: Probe, folder: Path, device: str, env: dict[str, str], said: str
) -> None:
    message = run_probe("fail", folder=folder, device=device, env=env)
    assert said in message
    assert bool(message) == bool(said)


def test_a_gpu_cannot_be_chosen_once_another_library_uses_the_first(run_probe: Probe, folder: Path) -> None:
    env = {"FAKE_CUDA_SM": "90,90"}
    said = run_probe("fail_behind_another_library", folder=folder, device="cuda:1", env=env)
    assert said.startswith("DeviceError: this process already uses GPU 0, and cannot change to 1")
    assert run_probe("fail_behind_another_library", folder=folder, device="cuda:0", env=env) == ""


def test_the_cpu_loads_no_library_of_cuda(run_probe: Probe, folder: Path) -> None:
    def cuda_libraries(device: str) -> list[str]:
        names = run_probe("maps", folder=folder, device=device)
        return [name for name in names if name.startswith(("libcu", "libonnxruntime_providers_cuda"))]

    assert cuda_libraries("cpu") == []
    assert len(cuda_libraries("cuda")) == 8


def test_a_folder_with_an_if_runs_on_a_gpu_without_a_cuda_graph(
    run_probe: Probe, checkpoint: Path, tmp_path: Path
) -> None:
    from phi3v.export.build import export_model
    from phi3v.export.checkpoint import Checkpoint
    from phi3v.export.decoder import write_decoder

    folder = export_model(checkpoint, tmp_path / "older", precision="fp16", device="cuda")
    (folder / "phi3v.json").unlink()
    write_decoder(Checkpoint.open(checkpoint), folder / "text.onnx", device="cpu", dtype="float16")
    _, *others = run_probe("steps", folder=folder, length=5)
    assert {step["copies_h2d"] for step in others} == {2}  # the constants of the If
