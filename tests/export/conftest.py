"""One tiny checkpoint and the model folders built from it, made once a session."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from phi3v.export.build import export_model
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

SWITCH = 256
"""Where the tiny checkpoint's LongRoPE switches factors."""


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    return write_random_checkpoint(path, tiny_dims(original_context=SWITCH), dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(checkpoint_dir: Path) -> Checkpoint:
    return Checkpoint.open(checkpoint_dir)


@pytest.fixture(scope="session")
def fp32_model(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(checkpoint_dir, tmp_path_factory.mktemp("model") / "fp32", precision="fp32")


@pytest.fixture(scope="session")
def int4_model(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(checkpoint_dir, tmp_path_factory.mktemp("model") / "int4", precision="int4")


@pytest.fixture(scope="session")
def session() -> Callable[[Path], onnxruntime.InferenceSession]:
    def open_session(graph: Path) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    return open_session
