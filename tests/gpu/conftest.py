"""Runs probes in the environment with the fake CUDA (fake/README.md), on small models of real structure."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import SWITCH, Probe

HERE = Path(__file__).parent
TREE = HERE.parents[1]
VARIABLE = "PHI3V_FAKE_CUDA"


@pytest.fixture(scope="session")
def fake_cuda() -> Path:
    """The environment that fake/make_environment.py made."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names no environment with the fake CUDA (tests/gpu/fake/README.md)")
    return Path(os.environ[VARIABLE]).absolute()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this tree's `phi3v`, for PYTHONPATH: the environment has none of its own."""
    path = tmp_path_factory.mktemp("package") / "phi3v"
    path.mkdir()
    for file in (TREE / "runtime").iterdir():
        (path / file.name).symlink_to(file)
    for folder in ("export", "cli", "bench"):
        (path / folder).symlink_to(TREE / folder)
    return path.parent


@pytest.fixture(scope="session")
def make_environment(fake_cuda: Path, package: Path) -> Callable[..., dict[str, str]]:
    """The variables of a process in the environment, with or without the nvidia wheels and the driver."""

    def make(wheels: bool = True, driver: bool = True) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAKE_CUDA", "CUDA_", "LD_"))}
        imported = [package, fake_cuda / "wheels"] if wheels else [package]
        paths = {"PYTHONPATH": os.pathsep.join(map(str, imported))}
        return {**kept, **paths, **({"LD_LIBRARY_PATH": str(fake_cuda / "driver")} if driver else {})}

    return make


@pytest.fixture(scope="session")
def run_probe(
    fake_cuda: Path,
    make_environment: Callable[..., dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Probe:
    """Calls a function of probe.py in the environment, in a process of its own.

    `wheels` False leaves out what the nvidia wheels bring, `driver` False the driver.
    """

    def run(
        function: str,
        *,
        env: dict[str, str] | None = None,
        wheels: bool = True,
        driver: bool = True,
        **arguments: Any,
    ) -> Any:
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        done = subprocess.run(
            [str(fake_cuda / "bin" / "python"), str(HERE / "probe.py"), function, json.dumps(asked)],
            env={**make_environment(wheels, driver), **(env or {})},
            cwd=tmp_path_factory.mktemp(function),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def checkpoint(fake_cuda: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with heads of the published size."""
    from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

    dims = tiny_dims(hidden_size=192, heads=2, layers=2, original_context=SWITCH, context=4 * SWITCH)
    return write_random_checkpoint(tmp_path_factory.mktemp("cuda") / "checkpoint", dims, seed=1)


@pytest.fixture(scope="session", params=["int4", "fp16"])
def folder(request: pytest.FixtureRequest, checkpoint: Path) -> Path:
    """A folder made for CUDA."""
    from phi3v.export.build import export_model

    return export_model(checkpoint, checkpoint.parent / request.param, precision=request.param, device="cuda")


@pytest.fixture(scope="session")
def profiled(folder: Path) -> Path:
    """The folder with a genai_config.json that asks ONNX Runtime for a profile of each graph."""
    copied = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-profiled")))
    (copied / "phi3v.json").unlink()
    config = json.loads((copied / "genai_config.json").read_text())
    for graph in ("vision", "embedding", "decoder"):
        config["model"][graph]["session_options"]["enable_profiling"] = graph
    (copied / "genai_config.json").write_text(json.dumps(config))
    return copied
