"""The NVIDIA side of this machine: its GPUs, their driver, and the libraries that ONNX Runtime's CUDA build loads."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..errors import DeviceError, MissingDependencyError
from .device_table import TABLE, DeviceKind, DeviceStatus
from .install import install_line

CUDA_LIBRARIES = {
    "libcudart.so.13": "nvidia-cuda-runtime",
    "libcublasLt.so.13": "nvidia-cublas",
    "libcublas.so.13": "nvidia-cublas",
    "libcufft.so.12": "nvidia-cufft",
    "libcurand.so.10": "nvidia-curand",
    "libcudnn.so.9": "nvidia-cudnn-cu13",
}
"""What ONNX Runtime's CUDA 13 provider loads, each behind those it needs, and the wheel that brings each."""

_COMPILER = "libnvrtc.so.13"
"""cuDNN loads it for some of its kernels; a machine without it runs all the same."""

_ON_WINDOWS = {
    "libcuda.so.1": "nvcuda.dll",
    "libnvidia-ml.so.1": "nvml.dll",
    "libcudart.so.13": "cudart64_13.dll",
    "libcublasLt.so.13": "cublasLt64_13.dll",
    "libcublas.so.13": "cublas64_13.dll",
    "libcufft.so.12": "cufft64_12.dll",
    "libcurand.so.10": "curand64_10.dll",
    "libcudnn.so.9": "cudnn64_9.dll",
}
"""What the same libraries are called there."""

LEAST_DRIVER_CUDA = (13, 0)
LEAST_DRIVER = "580"
"""The first driver for that CUDA version."""

BUILT_FOR = {7: 5, 8: 0, 9: 0, 12: 0}
"""Compute capabilities that the wheels hold code for: the lowest minor number of each major one.

cuobjdump lists sm 75, 80, 86, 89, 90 and 120. Such code runs on GPUs with its own major number and no lower minor one,
and the wheels bring no PTX, from which a driver could compile for others.
"""

VISIBLE = "CUDA_VISIBLE_DEVICES"

_CHOICE = "PHI3V_GPU_CHOICE"
"""Set where a GPU was chosen, for the processes that inherit `VISIBLE`: JSON of [number, `VISIBLE`, `VISIBLE` before].

Without it "cuda:1" in a child of a process on "cuda:1" would count the GPUs that its parent left visible.
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver describes it; `driver_cuda` is the newest CUDA version the driver runs."""

    name: str
    memory_bytes: int
    driver_cuda: str
    compute_capability: str


class _Driver:
    """Whether this process asked the driver, which reads `CUDA_VISIBLE_DEVICES` once: when it is first asked."""

    asked = False


def installed(distribution: str) -> str | None:
    """Version of an installed distribution, None if it is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def install_command(row: DeviceKind) -> str:
    """What to type for a device's packages.

    ONNX Runtime and genai come in two builds whose wheels overwrite each other's files, so the other one goes first.
    """
    rivals = [name for name in TABLE["cpu" if row.kind == "cuda" else "cuda"].packages if installed(name)]
    removal = f"pip uninstall -y {' '.join(rivals)} && " if rivals else ""
    return f"{removal}{install_line(row.extra)}"


def cuda_status() -> DeviceStatus:
    """Look for the CUDA wheels, a driver, a GPU that they have code for, and every library the provider loads."""
    if not installed("onnxruntime-genai-cuda"):
        return DeviceStatus(False, f"the CUDA build is not installed; run: {install_command(TABLE['cuda'])}")
    found = gpus()
    if not found:
        number, _ = _read_choice()
        chosen = "" if number is None else f" under number {number}"
        library = library_name("libcuda.so.1")
        return DeviceStatus(False, f"no NVIDIA driver with a GPU answers{chosen} ({library}); check `nvidia-smi -L`")
    if problem := find_problem(found[0]):
        return DeviceStatus(False, problem)
    try:
        missing = missing_cuda_libraries()
    except MissingDependencyError as exc:
        return DeviceStatus(False, str(exc))
    if missing:
        wheels = sorted({CUDA_LIBRARIES[name] for name in missing})
        return DeviceStatus(False, f"{', '.join(missing)} cannot be loaded; run: pip install {' '.join(wheels)}")
    return DeviceStatus(True, "ready")


def find_problem(gpu: Gpu) -> str | None:
    """Why ONNX Runtime's CUDA build cannot run on a GPU, and what to do; None if it can."""
    if _numbers(gpu.driver_cuda) < LEAST_DRIVER_CUDA:
        return (
            f"the driver of {gpu.name} runs CUDA {gpu.driver_cuda} and older, and ONNX Runtime needs "
            f"{'.'.join(map(str, LEAST_DRIVER_CUDA))}; install driver {LEAST_DRIVER} or newer"
        )
    major, minor = _numbers(gpu.compute_capability)
    if major not in BUILT_FOR or minor < BUILT_FOR[major]:
        return (
            f"{gpu.name} has compute capability {gpu.compute_capability}, and ONNX Runtime's CUDA build has code for "
            "7.5, 8.x, 9.0 and 12.x only; take the CPU (--device cpu), or another GPU (--device cuda:NUMBER)"
        )
    return None


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def select_gpu(number: int) -> None:
    """Make one GPU the only one that this process sees, hence genai's: it runs on the first, whatever it is told.

    `number` counts the GPUs that were visible before any choice. A process can choose until it, or another library in
    it, asks the driver: then DeviceError for any other GPU.
    """
    chosen, visible = _read_choice()
    if number == chosen:
        return
    numbers = visible.split(",") if visible is not None else None
    if numbers is not None and not number < len(numbers):
        raise DeviceError(f"device is 'cuda:{number}', and {VISIBLE}={visible} shows fewer GPUs")
    name = numbers[number] if numbers else str(number)
    if _driver_was_asked():
        held = chosen or 0
        if number == held:
            return
        raise DeviceError(
            f"this process already uses GPU {held}, and cannot change to {number}; load the model in another process, "
            f"or set {VISIBLE}={name} before this one starts"
        )
    os.environ[VISIBLE] = name
    os.environ[_CHOICE] = json.dumps([number, name, visible])


def _read_choice() -> tuple[int | None, str | None]:
    """The GPU that was chosen, here or by a process that started this one, and which were visible before.

    None and those that are visible now if none was, or if somebody set `VISIBLE` since.
    """
    now = os.environ.get(VISIBLE)
    try:
        number, then, before = json.loads(os.environ.get(_CHOICE, ""))
    except (ValueError, TypeError):
        return None, now
    return (number, before) if then == now else (None, now)


def _driver_was_asked() -> bool:
    """Whether anything in this process has initialised the driver, as PyTorch may have; until then it refuses calls."""
    if _Driver.asked or sys.platform == "win32":
        return _Driver.asked
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int(0))) == 0)


def gpus() -> list[Gpu]:
    """GPUs the NVIDIA driver offers, asked through libcuda itself, genai's first; empty without a driver."""
    try:
        driver = ctypes.CDLL(library_name("libcuda.so.1"))
    except OSError:
        return []
    _Driver.asked = True
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return [_describe(driver, index, cuda) for index in range(count.value)]


def _describe(driver: ctypes.CDLL, index: int, driver_cuda: str) -> Gpu:
    device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = [ctypes.c_int(0), ctypes.c_int(0)]
    for value, attribute in zip(capability, (75, 76), strict=True):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    major, minor = (value.value for value in capability)
    return Gpu(name.value.decode(errors="replace"), memory.value, driver_cuda, f"{major}.{minor}")


def gpu_memory_used() -> int | None:
    """Bytes in use on the first GPU, by every process on it; None where the driver does not say."""
    try:
        library = ctypes.CDLL(library_name("libnvidia-ml.so.1"))
    except OSError:
        return None
    handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used: nvmlMemory_t
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return None
    return int(memory[2]) if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 else None


def missing_cuda_libraries() -> list[str]:
    """CUDA libraries that do not load, the nvidia wheels tried first. Raises MissingDependencyError."""
    preload_cuda_libraries()
    return [name for name in CUDA_LIBRARIES if not _loads(library_name(name))]


def library_name(library: str) -> str:
    """What a library of Linux is called on this system."""
    return _ON_WINDOWS.get(library, library) if sys.platform == "win32" else library


def preload_cuda_libraries() -> None:
    """Load the CUDA libraries of the nvidia wheels, wherever they lie on the import path.

    They come before those of a system CUDA, so that all are of one version; what another package has loaded already
    stays. Raises MissingDependencyError when onnxruntime-gpu is not installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependencyError(f"onnxruntime cannot be imported ({exc}); run: {install_line('cuda')}") from exc
    if sys.platform == "win32":
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls(directory="")
        return
    for name in (*CUDA_LIBRARIES, _COMPILER):
        if not _loads(name, mode=os.RTLD_NOLOAD):
            _load_from_wheels(name)


def _load_from_wheels(library: str) -> None:
    """Take the first on the import path. (ONNX Runtime's own `preload_dlls` looks beside its package only.)"""
    for path in (path for entry in sys.path for path in sorted(Path(entry).glob(f"nvidia/*/lib/{library}"))):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return


def _loads(library: str, mode: int = ctypes.DEFAULT_MODE) -> bool:
    try:
        ctypes.CDLL(library, mode=mode)
    except OSError:
        return False
    return True
