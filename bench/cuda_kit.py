"""Packs what a GPU machine without a package index lacks for the CUDA table: `phi3v bench cuda-kit OUT`.

Such a machine has PyTorch, and with it the CUDA libraries. It lacks ONNX Runtime's and genai's CUDA builds (272 MB of
wheels for six GPU architectures) and this repository. The kit holds device code for one architecture. What ONNX Runtime
compiled for that architecture alone is always left out: on sm_90, 44 MB of grouped products for mixtures of experts
(`moe_gemm_tma_ws_sm90_*`) and of products in fp8, which a dense model in int4 or fp16 never launches.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ..errors import MissingDependencyError, OptionError
from .fatbin import trim_device_code
from .record import SOURCE_FILE, describe_source

OPTIONAL = {"nano": "the tests of its answers do not run then", "tree": "`run` must be started in a clone then"}
"""Parts that can be left out, and what that costs."""

_TREE = Path(__file__).resolve().parents[1]
_CONSTRAINTS = _TREE / ".ci" / "constraints.txt"
_RUN = _TREE / "bench" / "cuda_kit.sh"
_PACKAGE = {
    "runtime": "site/phi3v",
    "export": "site/phi3v/export",
    "cli": "site/phi3v/cli",
    "bench": "site/phi3v/bench",
}
_TESTS = ("pyproject.toml", "tests/conftest.py", "tests/gpu/conftest.py", "tests/gpu/test_on_a_real_gpu.py")

_CUDA_BUILDS = {"onnxruntime-gpu": "onnxruntime", "onnxruntime-genai-cuda": "onnxruntime-genai"}
"""The wheels, and the packages whose versions they take."""

_PLATFORM = "manylinux_2_28_x86_64"
_NOT_NEEDED = (
    *(f"onnxruntime/{folder}/" for folder in ("backend", "datasets", "quantization", "tools", "transformers")),
    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
)
"""An export needs three of these folders. `run` takes them from the machine's own onnxruntime."""

_DEVICE_CODE = {
    "onnxruntime/capi/libonnxruntime_providers_cuda.so": True,
    "onnxruntime_genai/libonnxruntime-genai-cuda.so": False,
}
"""Libraries with device code, and whether what is for one architecture alone is left out of them."""

_LEAST_LEFT = 0.9
"""What packing leaves of device code at least, because nvcc has compressed it already."""

_FILTERS: list[dict[str, int]] = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20},
]
_MIB = 1 << 20


def write_kit(
    out: Path,
    *,
    arch: int,
    python: str = "3.12",
    limit_mib: float = 64.0,
    without: Collection[str] = (),
    wheels: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Write the archives and the script `run` to OUT, and return the bytes of each.

    `arch` is the GPU's compute capability without the dot, `python` the version of Python there. `without` leaves out
    parts by name. `wheels` is a folder that holds both wheels; None downloads them with pip. Raises OptionError if the
    wheels hold no code for `arch`, or if the kit is larger than `limit_mib`, as soon as that is certain; OUT is not
    written then. Raises MissingDependencyError without binutils, or if the wheels cannot be had.
    """
    _check(out, python)
    source = describe_source()  # first: the scratch folder may lie in the repository, which git would call changed
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        scratch = Path(folder)
        kit = scratch / "kit"
        kit.mkdir()
        (scratch / SOURCE_FILE).write_text(json.dumps(source), encoding="utf-8")
        shutil.copy(_RUN, kit / "run")
        for part, files in _list_tree(scratch / SOURCE_FILE).items():
            if part not in without:
                _pack(files, kit / f"{part}.tar.xz")
        _check_size(_measure(kit), limit_mib)
        if wheels is None:
            wheels = scratch / "wheels"
            say(f"downloading {' and '.join(_list_wheels())}")
            _download(wheels, python)
        site = scratch / "site"
        _unpack(wheels, site)
        device_code = _trim(site, arch)
        say(f"packing {device_code / _MIB:.1f} MiB of code for sm_{arch} and what calls it: about two minutes")
        _check_size({**_measure(kit), "onnxruntime.tar.xz": int(_LEAST_LEFT * device_code)}, limit_mib)
        (scratch / "arch").write_text(f"{arch}\n", encoding="utf-8")
        _pack({"arch": scratch / "arch", **_list_folder(site, "site")}, kit / "onnxruntime.tar.xz")
        sizes = _measure(kit)
        _check_size(sizes, limit_mib)
        shutil.copytree(kit, out, dirs_exist_ok=True)
    return sizes


def _check(out: Path, python: str) -> None:
    """Raise what can be known before anything is done."""
    if out.exists() and any(out.iterdir()):
        raise OptionError(f"{out} is not empty; give another folder")
    if not re.fullmatch(r"3\.\d+", python):
        raise OptionError(f"the Python there is {python!r}; give a version such as 3.12")
    if not _CONSTRAINTS.is_file():
        raise OptionError(
            "phi3v is installed without its repository, which the kit holds; in a clone run: pip install -e ."
        )
    if not shutil.which("strip"):
        raise MissingDependencyError("strip is not installed; install binutils")


def _check_size(sizes: Mapping[str, int], limit_mib: float) -> None:
    """Raise OptionError, which says what could be left out, if the files of these bytes are over the limit."""
    total = sum(sizes.values())
    if total <= limit_mib * _MIB:
        return
    whole = "" if "onnxruntime.tar.xz" in sizes else ", and onnxruntime.tar.xz is to come"
    advice = "".join(
        f"; --without {part} saves {render_size(sizes[f'{part}.tar.xz'])}, but {cost}"
        for part, cost in OPTIONAL.items()
        if f"{part}.tar.xz" in sizes
    )
    raise OptionError(
        f"the kit takes at least {render_size(total)} ({render_sizes(sizes)}{whole}), over the limit of {limit_mib:g} "
        f"MiB{advice}; or raise --limit-mib"
    )


def render_sizes(sizes: Mapping[str, int]) -> str:
    """Render the files of a kit, the largest first."""
    return ", ".join(
        f"{name} {render_size(sizes[name])}" for name in sorted(sizes, key=sizes.__getitem__, reverse=True)
    )


def render_size(count: int) -> str:
    """Render bytes in MiB, in which such limits are given."""
    return f"{count / _MIB:.2f} MiB"


def _measure(kit: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in kit.iterdir()}


def _list_wheels() -> list[str]:
    """Name the CUDA builds of the versions that everything here is tested with."""
    versions = dict(line.split("==") for line in _CONSTRAINTS.read_text(encoding="utf-8").split())
    return [f"{wheel}=={versions[package]}" for wheel, package in _CUDA_BUILDS.items()]


def _download(folder: Path, python: str) -> None:
    target = ["--python-version", python, "--implementation", "cp", "--platform", _PLATFORM]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [*command, "--no-deps", "--only-binary=:all:", *target, *_list_wheels()], capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise MissingDependencyError(
            f"pip cannot download the wheels for Python {python}: {said[-1]}; give their folder with --wheels"
        )


def _unpack(wheels: Path, site: Path) -> None:
    """Unpack what the machine lacks of both wheels, without what debuggers read."""
    for name in _CUDA_BUILDS:
        found = sorted(wheels.glob(f"{name.replace('-', '_')}-*.whl"))
        if len(found) != 1:
            raise OptionError(f"{wheels} holds {len(found)} wheels of {name}; one is needed")
        with zipfile.ZipFile(found[0]) as wheel:
            wheel.extractall(site, [name for name in wheel.namelist() if not name.startswith(_NOT_NEEDED)])
    for library in site.rglob("*.so*"):
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)


def _trim(site: Path, arch: int) -> int:
    """Leave the device code for `arch` only, and return its bytes."""
    return sum(trim_device_code(site / name, arch, drop_exclusive=drop) for name, drop in _DEVICE_CODE.items())


def _list_tree(source: Path) -> dict[str, dict[str, Path]]:
    """List the files of the parts that come from this repository, by their names in the archive.

    The package lies as it is imported, with the file that says what it was packed from; the tests as in the repository.
    """
    tree = {f"site/phi3v/{SOURCE_FILE}": source}
    for folder, place in _PACKAGE.items():
        tree |= _list_folder(_TREE / folder, place, "*.py")
    tree |= {name: _TREE / name for name in _TESTS}
    tree |= _list_folder(_TREE / "tests" / "support", "tests/support", "*.py")
    tree |= _list_folder(_TREE / "examples", "examples")
    return {"nano": _list_folder(_TREE / "runtime" / "builtin", "site/phi3v/builtin"), "tree": tree}


def _list_folder(folder: Path, place: str, pattern: str = "*") -> dict[str, Path]:
    """List the files of a folder and those below it."""
    files = (path for path in sorted(folder.rglob(pattern)) if path.is_file() and "__pycache__" not in path.parts)
    return {f"{place}/{path.relative_to(folder).as_posix()}": path for path in files}


def _pack(files: Mapping[str, Path], archive: Path) -> None:
    """Write an archive whose bytes depend on the files' names and contents only.

    The smallest come first, so that ONNX Runtime's library and its Python module, half of which is the same code, lie
    beside each other within the compressor's dictionary.
    """
    by_size = sorted(files.items(), key=lambda item: (item[1].stat().st_size, item[0]))
    with lzma.open(archive, "wb", filters=_FILTERS) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, path in by_size:
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(member, content)
