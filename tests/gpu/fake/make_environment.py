"""Makes a virtual environment with the real CUDA wheels over a CUDA made of nothing: `make_environment.py FOLDER`.

Needs Python 3.11 or newer, g++ and the package index. Does nothing if FOLDER holds what these files make. Exit status
77: the packages cannot be had.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parents[2] / ".ci" / "constraints.txt"
VERSIONS = dict(line.split("==") for line in CONSTRAINTS.read_text().split())
WHEELS = (
    f"onnxruntime-gpu=={VERSIONS['onnxruntime']}",
    f"onnxruntime-genai-cuda=={VERSIONS['onnxruntime-genai']}",
)
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88")
RUNTIME_PACKAGES = (
    "numpy", "pillow", "click", "rich", "tokenizers", "huggingface-hub", "filelock", "llguidance",
    "flatbuffers", "protobuf", "packaging",
)  # fmt: skip
"""What phi3v and the wheels import, without the packages that bring CUDA."""

NO_PACKAGES = 77


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    packages = "\n".join([sys.version, *WHEELS, *HEADERS, *RUNTIME_PACKAGES])
    if _is_new(folder / "installed", packages):
        venv.create(folder, with_pip=True, clear=True)
        try:
            _install(folder)
        except subprocess.CalledProcessError as exc:
            print(f"the packages cannot be had: {exc}")
            sys.exit(NO_PACKAGES)
        (folder / "installed").write_text(packages)
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.*")))).hexdigest()
    if _is_new(folder / "built", sources):
        _build(folder)
        (folder / "built").write_text(sources)


def _is_new(stamp: Path, made_from: str) -> bool:
    return not stamp.is_file() or stamp.read_text() != made_from


def _install(folder: Path) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", *WHEELS], check=True)
    subprocess.run([*pip, "install", "-c", str(CONSTRAINTS), *RUNTIME_PACKAGES], check=True)
    subprocess.run([*pip, "download", "--no-deps", "--dest", str(folder / "headers"), *HEADERS], check=True)
    for wheel in (folder / "headers").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "headers", [name for name in archive.namelist() if "/include/" in name])


def _build(folder: Path) -> None:
    """Libraries as the nvidia wheels lay them, in a folder for PYTHONPATH; the driver in one for LD_LIBRARY_PATH.

    So tests can leave either out.
    """
    (site,) = (folder / "lib").glob("python*/site-packages")
    wheels, driver = folder / "wheels" / "nvidia", folder / "driver"
    cuda, cudnn = wheels / "cu13" / "lib", wheels / "cudnn" / "lib"
    for place in (cuda, cudnn, driver):
        place.mkdir(parents=True, exist_ok=True)
    (include,) = (folder / "headers").glob("nvidia/*/include")
    runtime = cuda / "libcudart.so.13"
    _compile(runtime, [HERE / "runtime.cpp"], include=include)
    _compile(driver / "libcuda.so.1", [HERE / "driver.cpp"])
    provider = site / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    wanted = _functions(provider)
    libraries = {
        "cublas": (cuda / "libcublas.so.13", r"cublas(?!Lt)[A-Z]\w+"),
        "cublaslt": (cuda / "libcublasLt.so.13", r"cublasLt[A-Z]\w+"),
        "cudnn": (cudnn / "libcudnn.so.9", r"cudnn[A-Z]\w+"),
    }
    for name, (library, pattern) in libraries.items():
        written = HERE / f"{name}.c"
        names = {function for function in wanted if re.fullmatch(pattern, function)}
        generated = folder / f"{name}_generated.c"
        generated.write_text(_successes(names - set(re.findall(r"(\w+)\(", written.read_text()))))
        _compile(library, [written, generated], runtime=runtime)
    for unused in ("libcufft.so.12", "libcurand.so.10"):  # linked, and no function of them is called
        (folder / "empty.c").write_text("int fake_cuda_nothing;\n")
        _compile(cuda / unused, [folder / "empty.c"])


def _functions(library: Path) -> set[str]:
    """Functions of cuBLAS and cuDNN that a library names, be it to link them or to look them up."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {name.decode() for name in re.findall(rb"\0(cu(?:blas|dnn)[A-Z]\w*)(?=\0)", content)}


def _successes(names: set[str]) -> str:
    """C of functions that are counted and return success; those that make a handle set their first argument."""
    lines = ["void fake_cuda_called(const char* function);"]
    for name in sorted(names):
        makes = re.search(r"Create(_v2)?$", name) or re.fullmatch(r"cudnnCreate\w*", name)
        argument, sets = ("void** handle", "*handle = (void*)16; ") if makes else ("", "")
        lines.append(f'int {name}({argument}) {{ {sets}fake_cuda_called("{name}"); return 0; }}')
    return "\n".join(lines) + "\n"


def _compile(library: Path, sources: list[Path], include: Path | None = None, runtime: Path | None = None) -> None:
    """A shared library whose symbols carry its name as their version, as those of CUDA do."""
    objects = []
    for source in sources:
        objects.append(f"{library}.{source.stem}.o")
        compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc"]
        headers = [f"-I{include}"] if include else []
        subprocess.run([*compiler, "-O1", "-w", "-fPIC", *headers, "-c", "-o", objects[-1], str(source)], check=True)
    script = Path(f"{library}.map")
    script.write_text(f"{library.name} {{ global: *; }};\n")
    names = [f"-Wl,-soname,{library.name}", f"-Wl,--version-script={script}"]
    linked = [str(runtime), f"-Wl,-rpath,{runtime.parent}"] if runtime else []
    subprocess.run(["g++", "-shared", "-o", str(library), *names, *objects, *linked], check=True)


if __name__ == "__main__":
    main()
