"""One tiny checkpoint and the model folders built from it, made once a session."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

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
def fp16_model(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(checkpoint_dir, tmp_path_factory.mktemp("model") / "fp16", precision="fp16")


@pytest.fixture(scope="session")
def session() -> Callable[[Path], onnxruntime.InferenceSession]:
    def open_session(graph: Path) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    return open_session


def _stock_model(checkpoint: Checkpoint) -> Phi3ForCausalLM:
    dims = checkpoint.dims.decoder
    rope = {"rope_type": "default", "rope_theta": dims.rope_theta}
    original = dims.max_position_embeddings
    if dims.long_rope is not None:
        original = dims.long_rope.original
        factors = {"short_factor": list(dims.long_rope.short_factor), "long_factor": list(dims.long_rope.long_factor)}
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": original, **factors}
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = Phi3Config(
        **{name: getattr(dims, name) for name in names},
        num_key_value_heads=dims.num_key_value_heads,
        max_position_embeddings=dims.max_position_embeddings,
        original_max_position_embeddings=original,
        rms_norm_eps=dims.rms_norm_eps,
        rope_parameters=rope,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    model = Phi3ForCausalLM(config).eval()
    model.load_state_dict({name: torch.from_numpy(checkpoint.float32(name)) for name in model.state_dict()})
    return model


@pytest.fixture(scope="session")
def load_stock() -> Callable[[Checkpoint], Phi3ForCausalLM]:
    """Stock transformers' decoder with a checkpoint's weights."""
    return _stock_model


@pytest.fixture(scope="session")
def stock(checkpoint: Checkpoint) -> Phi3ForCausalLM:
    return _stock_model(checkpoint)
