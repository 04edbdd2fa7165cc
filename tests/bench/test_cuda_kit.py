"""A kit holds what a GPU machine lacks, is refused when it is too large, and its script measures without an index."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from device_code import Code, make_container, make_library
from places import ROOT
from processes import PATIENCE_S

from phi3v.bench.cuda_kit import OPTIONAL, write_kit
from phi3v.bench.record import Record, describe_source
from phi3v.cli.bench.cuda_kit import cuda_kit
from phi3v.errors import OptionError

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform != "linux", reason="a kit is made by binutils, for Linux"),
]

VERSION = "cp{}{}-cp{}{}".format(*sys.version_info[:2] * 2)
TAG = "cpython-{}{}".format(*sys.version_info[:2])
CPU = ["--size", "tiny", "--device", "cpu", "--crops", "16", "--new-tokens", "4", "--rounds", "1"]


def noise(count: int) -> bytes:
    """Bytes that cannot be packed."""
    return np.random.default_rng(0).bytes(count)


def write_wheels(
    folder: Path, *, device_code: bytes = b"ninety" * 100, host_code: bytes = b"", python: str = TAG
) -> Path:
    """Small wheels with the names and the layout of the real ones."""
    folder.mkdir()
    library = make_library(
        make_container(Code(80, b"eighty" * 100), Code(90, device_code)), make_container(Code(90, b"mixture" * 100))
    )
    wheels = {
        f"onnxruntime_gpu-1.0-{VERSION}-manylinux_2_28_x86_64.whl": {
            "onnxruntime/__init__.py": b"",
            "onnxruntime/data.bin": host_code,
            "onnxruntime/tools/convert.py": b"",
            "onnxruntime/capi/libonnxruntime_providers_cuda.so": library,
            "onnxruntime/capi/libonnxruntime_providers_tensorrt.so": library,
            "onnxruntime_gpu-1.0.dist-info/METADATA": b"Name: onnxruntime-gpu\n",
        },
        f"onnxruntime_genai_cuda-1.0-{VERSION}-manylinux_2_28_x86_64.whl": {
            "onnxruntime_genai/__init__.py": b"",
            "onnxruntime_genai/libonnxruntime-genai-cuda.so": library,
            "onnxruntime_genai/models/builder.py": b"",
            f"onnxruntime_genai/onnxruntime_genai.{python}-x86_64-linux-gnu.so": library,
        },
    }
    for name, files in wheels.items():
        with zipfile.ZipFile(folder / name, "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheels(tmp_path_factory.mktemp("cuda-kit") / "wheels")


@pytest.fixture(scope="module")
def kit(wheels: Path) -> Path:
    """Without nano, which takes seconds to pack."""
    write_kit(wheels.parent / "kit", arch=90, wheels=wheels, without=["nano"])
    return wheels.parent / "kit"


def read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def run(
    kit: Path, *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(kit / "run"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, **(env or {})},
        timeout=2 * PATIENCE_S,
    )


def test_the_wheels_are_packed_without_what_the_gpu_does_not_run(kit: Path) -> None:
    files = read_archive(kit / "onnxruntime.tar.xz")
    assert sorted(files) == [
        "arch",
        "site/onnxruntime/__init__.py",
        "site/onnxruntime/capi/libonnxruntime_providers_cuda.so",
        "site/onnxruntime/data.bin",
        "site/onnxruntime_genai/__init__.py",
        "site/onnxruntime_genai/libonnxruntime-genai-cuda.so",
        "site/onnxruntime_genai/models/builder.py",
        f"site/onnxruntime_genai/onnxruntime_genai.{TAG}-x86_64-linux-gnu.so",
        "site/onnxruntime_gpu-1.0.dist-info/METADATA",
    ]
    assert files["arch"] == b"90\n"
    provider = files["site/onnxruntime/capi/libonnxruntime_providers_cuda.so"]
    genai = files["site/onnxruntime_genai/libonnxruntime-genai-cuda.so"]
    assert [code in provider for code in (b"eighty", b"ninety", b"mixture")] == [False, True, False]
    assert [code in genai for code in (b"eighty", b"ninety", b"mixture")] == [False, True, True]


def test_the_tree_is_the_package_and_the_tests_for_a_gpu(kit: Path) -> None:
    files = read_archive(kit / "tree.tar.xz")
    for packed, original in (
        ("site/phi3v/engine.py", "runtime/engine.py"),
        ("site/phi3v/bench/cuda_table.py", "bench/cuda_table.py"),
        ("tests/gpu/test_on_a_real_gpu.py", "tests/gpu/test_on_a_real_gpu.py"),
        ("examples/chart.png", "examples/chart.png"),
    ):
        assert files[packed] == (ROOT / original).read_bytes()
    assert json.loads(files["site/phi3v/source.json"]) == describe_source()
    assert not [name for name in files if "builtin" in name or "docs" in name or "records" in name]


@pytest.mark.slow
def test_nano_is_a_part_of_its_own(wheels: Path, tmp_path: Path) -> None:
    write_kit(tmp_path / "kit", arch=90, wheels=wheels)
    nano = read_archive(tmp_path / "kit" / "nano.tar.xz")
    built_in = ROOT / "runtime" / "builtin"
    assert nano == {
        f"site/phi3v/builtin/{path.relative_to(built_in).as_posix()}": path.read_bytes()
        for path in built_in.rglob("*")
        if path.is_file()
    }


def test_the_same_kit_has_the_same_bytes(kit: Path, wheels: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    sizes = write_kit(again, arch=90, wheels=wheels, without=["nano"])
    assert sizes == {path.name: path.stat().st_size for path in kit.iterdir()}
    assert all((kit / name).read_bytes() == (again / name).read_bytes() for name in sizes)


def test_parts_are_left_out(wheels: Path, tmp_path: Path) -> None:
    write_kit(tmp_path / "kit", arch=90, wheels=wheels, without=tuple(OPTIONAL))
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == ["onnxruntime.tar.xz", "run"]


def test_a_tree_over_the_limit_is_refused_before_the_wheels_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as raised:
        write_kit(tmp_path / "kit", arch=90, limit_mib=0.1, without=["nano"], wheels=tmp_path / "absent")
    assert re.fullmatch(
        r"the kit takes at least 0\.\d\d MiB \(tree\.tar\.xz (0\.\d\d) MiB, run 0\.00 MiB, and onnxruntime\.tar\.xz is "
        r"to come\), over the limit of 0\.1 MiB; --without tree saves \1 MiB, but `run` must be started in a clone "
        r"then; or raise --limit-mib",
        str(raised.value),
    )
    assert not (tmp_path / "kit").exists()


def test_device_code_over_the_limit_is_refused_before_it_is_packed(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path / "wheels", device_code=noise(4 << 20))
    said: list[str] = []
    with pytest.raises(OptionError, match=r"at least 7\.\d\d MiB .*onnxruntime.tar.xz 7\.2\d MiB.* limit of 7 MiB"):
        write_kit(tmp_path / "kit", arch=90, limit_mib=7, without=["nano"], wheels=wheels, say=said.append)
    assert said == ["packing 8.0 MiB of code for sm_90 and what calls it: about two minutes"]
    assert not (tmp_path / "kit").exists()


def test_a_kit_over_the_limit_is_not_written(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path / "wheels", host_code=noise(2 << 20))
    with pytest.raises(OptionError, match=r"onnxruntime.tar.xz 2\.0\d MiB.* limit of 2 MiB; --without tree saves 0\."):
        write_kit(tmp_path / "kit", arch=90, limit_mib=2, without=["nano"], wheels=wheels)
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": 70}, "libonnxruntime_providers_cuda.so holds no code for sm_70; it does for 80, 90"),
        ({"arch": 90, "python": "312"}, "the Python there is '312'; give a version such as 3.12"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    wheels: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        write_kit(tmp_path / "kit", wheels=wheels, without=["nano"], **options)  # type: ignore[arg-type]


def test_a_folder_without_the_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="holds 0 wheels of onnxruntime-gpu; one is needed"):
        write_kit(tmp_path / "kit", arch=90, wheels=tmp_path, without=["nano"])


def test_a_folder_that_holds_something_is_not_written_to(kit: Path, wheels: Path) -> None:
    with pytest.raises(OptionError, match="is not empty; give another folder"):
        write_kit(kit, arch=90, wheels=wheels)


def test_the_command_says_the_size_of_each_part(wheels: Path, tmp_path: Path) -> None:
    words = [str(tmp_path / "kit"), "--arch", "90", "--wheels", str(wheels), "--without", "nano"]
    done = CliRunner().invoke(cuda_kit, words)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'kit' / 'run'}\n"
    for part in ("onnxruntime.tar.xz", "tree.tar.xz", "run"):
        assert f"{part} 0." in done.stderr


def test_the_command_offers_the_parts_that_can_be_left_out() -> None:
    choices = {option.name: option.type.choices for option in cuda_kit.params if option.name == "without"}
    assert choices == {"without": tuple(OPTIONAL)}


def test_the_script_is_valid_bash(kit: Path) -> None:
    subprocess.run(["bash", "-n", str(kit / "run")], check=True, timeout=PATIENCE_S)
    assert os.access(kit / "run", os.X_OK)


def test_the_script_without_arguments_says_how_it_is_called(kit: Path) -> None:
    done = run(kit)
    assert done.returncode == 2
    assert "run RESULTS [MINUTES [OPTION of phi3v bench cuda-table]...]" in done.stderr


def test_minutes_that_are_none_are_refused(kit: Path, tmp_path: Path) -> None:
    done = run(kit, tmp_path, "soon")
    assert (done.returncode, done.stdout) == (1, "run: MINUTES is 'soon'; give a whole number, such as 9\n")
    assert (tmp_path / "run.log").read_text() == done.stdout


def test_a_kit_for_another_python_is_refused(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path / "wheels", python="cpython-38")
    write_kit(tmp_path / "kit", arch=90, wheels=wheels, without=["nano"])
    done = run(tmp_path / "kit", tmp_path / "results")
    assert done.returncode == 1
    assert f"is {TAG}, and the kit holds onnxruntime_genai.cpython-38-x86_64-linux-gnu.so; set $PYTHON" in done.stdout


def test_a_damaged_kit_is_refused(kit: Path, tmp_path: Path) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    cut = tmp_path / "kit" / "tree.tar.xz"
    cut.write_bytes(cut.read_bytes()[:-100])
    done = run(tmp_path / "kit", tmp_path / "results")
    assert done.returncode == 1
    assert done.stdout.endswith("run: an archive is damaged; copy the whole folder again\n")


def test_a_python_that_is_not_there_is_named(kit: Path, tmp_path: Path) -> None:
    done = run(kit, tmp_path / "results", env={"PYTHON": "python9"})
    assert (done.returncode, done.stdout) == (1, "run: there is no python9; set $PYTHON\n")


@pytest.mark.parametrize("capability", ["8.0", "12.0", "8.9"])
def test_a_kit_for_another_gpu_is_refused(kit: Path, tmp_path: Path, capability: str) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho {capability}\n")
    driver.chmod(0o755)
    done = run(kit, tmp_path / "results", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    wanted = capability.replace(".", "")
    assert done.returncode == 1
    assert done.stdout == (
        f"run: the GPU is of sm_{wanted}, and the kit holds code for sm_90; pack with --arch {wanted}\n"
    )


@pytest.fixture(scope="module")
def kit_for_the_cpu(kit: Path) -> Path:
    """The kit with ONNX Runtime's and genai's CPU builds, as installed here, in place of the CUDA builds."""
    with tarfile.open(kit / "onnxruntime.tar.xz", "w") as archive:
        for package in ("onnxruntime", "onnxruntime_genai"):
            (folder,) = find_spec(package).submodule_search_locations  # type: ignore[union-attr, misc]
            for path in Path(folder).iterdir():
                if path.name not in ("quantization", "transformers", "tools"):
                    archive.add(path, f"site/{package}/{path.name}")
    return kit


@pytest.mark.slow
def test_the_script_builds_tests_and_measures(kit_for_the_cpu: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run(kit_for_the_cpu, tmp_path / "results", "9", *CPU, cwd=scratch, env={"TMPDIR": str(scratch)})
    assert done.returncode == 0, done.stdout[-3000:]
    assert list(scratch.iterdir()) == []
    results = {path.name: path for path in (tmp_path / "results").iterdir()}
    assert sorted(results) == ["record.json", "report.html", "report.md", "run.log", "tests.log"]
    record = Record.read(results["record.json"])
    assert record.content["source"] == describe_source()
    assert {sample["subject"] for sample in record.content["samples"] if not sample["warmup"]} == set(record.subjects)
    assert "skipped" in results["tests.log"].read_text()
    log = results["run.log"].read_text()
    assert [line for line in log.splitlines() if line.startswith("== ")][1:] == ["== tests", "== build", "== measure"]
    assert "exported int4 and fp16" in log


@pytest.mark.slow
def test_without_the_tree_the_script_takes_the_clone_it_is_started_in(kit_for_the_cpu: Path, tmp_path: Path) -> None:
    bare = tmp_path / "kit"
    bare.mkdir()
    for name in ("run", "onnxruntime.tar.xz"):
        (bare / name).symlink_to(kit_for_the_cpu / name)
    elsewhere = run(bare, tmp_path / "results", cwd=tmp_path)
    assert elsewhere.returncode == 1
    assert "the kit was packed without the tree; start run in a clone of the repository" in elsewhere.stdout
    done = run(bare, tmp_path / "results", "9", "--size", "none", cwd=ROOT)
    assert done.returncode == 1
    assert "Invalid value for '--size'" in done.stdout
    assert done.stdout.endswith("run: the models could not be built, or not in 9 minutes\n")
