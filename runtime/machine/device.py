"""Finds out which device this machine can really use.

genai's own `is_cuda_available()` only says how its wheel was built.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, get_args

from ..errors import DeviceError, MissingDependencyError, OptionError

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", Device]
"""What a caller may ask for; `choose_device` decides what "auto" means."""

DEVICES: tuple[str, ...] = get_args(DeviceChoice)

CUDA_LIBRARIES = {
    "libcudart.so.13": "nvidia-cuda-runtime",
    "libcublas.so.13": "nvidia-cublas",
    "libcublasLt.so.13": "nvidia-cublas",
    "libcufft.so.12": "nvidia-cufft",
    "libcurand.so.10": "nvidia-curand",
    "libcudnn.so.9": "nvidia-cudnn-cu13",
}
"""What ONNX Runtime's CUDA 13 provider loads, and the wheel that brings each."""


@dataclass(frozen=True, slots=True)
class CudaStatus:
    """Whether CUDA can be used, and if not, why and what would help."""

    usable: bool
    reason: str


def installed(distribution: str) -> str | None:
    """Version of an installed distribution, None if it is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cuda_status() -> CudaStatus:
    """Look for the CUDA wheels, a driver with a GPU, and every library the provider loads."""
    if not installed("onnxruntime-genai-cuda"):
        return CudaStatus(False, "the CUDA build is not installed; run: pip install 'phi3v[cuda]'")
    if not gpus():
        return CudaStatus(False, "no NVIDIA driver with a GPU answers (libcuda.so.1); check `nvidia-smi`")
    try:
        missing = missing_cuda_libraries()
    except MissingDependencyError as exc:
        return CudaStatus(False, str(exc))
    if missing:
        wheels = sorted({CUDA_LIBRARIES[name] for name in missing})
        return CudaStatus(False, f"{', '.join(missing)} cannot be loaded; run: pip install {' '.join(wheels)}")
    return CudaStatus(True, "ready")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver describes it; `driver_cuda` is the newest CUDA version the driver runs."""

    name: str
    memory_bytes: int
    driver_cuda: str


def gpus() -> list[Gpu]:
    """GPUs the NVIDIA driver offers, asked through libcuda itself; empty without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return [_gpu(driver, index, cuda) for index in range(count.value)]


def _gpu(driver: ctypes.CDLL, index: int, driver_cuda: str) -> Gpu:
    device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), memory.value, driver_cuda)


def gpu_memory_used() -> int | None:
    """Bytes in use on the first GPU, by every process on it; None where the driver does not say."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used: nvmlMemory_t
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return None
    return int(memory[2]) if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 else None


def missing_cuda_libraries() -> list[str]:
    """CUDA libraries that do not load, the nvidia wheels tried first. Raises MissingDependencyError."""
    preload_cuda_libraries()
    return [name for name in CUDA_LIBRARIES if not _loads(name)]


def preload_cuda_libraries() -> None:
    """Load the CUDA libraries of the nvidia wheels, so that no system CUDA is needed.

    Raises MissingDependencyError when onnxruntime-gpu, which knows where they are, is not installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependencyError(f"onnxruntime cannot be imported ({exc}); run: pip install 'phi3v[cuda]'") from exc
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls(directory="")


def choose_device(wanted: str, built_for: str) -> Device:
    """The device to run on: what was asked for, or for "auto" the one the folder was built for where it works.

    Raises DeviceError when the wanted device, or the only one the folder runs on, is not usable here.
    """
    if wanted not in DEVICES:
        raise OptionError(f"device is {wanted!r}; allowed: {', '.join(DEVICES)}")
    if wanted == "cpu":
        return "cpu"
    if wanted == "auto" and built_for == "cpu":
        return "cpu"
    status = cuda_status()
    if status.usable:
        return "cuda"
    if wanted == "cuda":
        raise DeviceError(f"CUDA is not usable: {status.reason}")
    raise DeviceError(
        f"this model folder was built for CUDA, which is not usable: {status.reason}; "
        "or take a folder built for the CPU; device='cpu' tries this one all the same, slowly"
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
