"""One tiny checkpoint and the model folders built from it, made once a session.

What needs the export extra is imported where it is used: some of the tests below do without.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import onnxruntime
    from exports import Exports
    from transformers import Phi3ForCausalLM

    from phi3v.export.checkpoint import Checkpoint

SWITCH = 256
"""Where the tiny checkpoint's LongRoPE switches factors."""


@pytest.fixture(scope="session")
def checkpoint_dir(exports: Exports) -> Path:
    return exports.checkpoint(original_context=SWITCH, dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(checkpoint_dir: Path) -> Checkpoint:
    from phi3v.export.checkpoint import Checkpoint

    return Checkpoint.open(checkpoint_dir)


@pytest.fixture(scope="session")
def fp32_model(exports: Exports) -> Path:
    return exports.model("fp32", original_context=SWITCH, dtype="float32")


@pytest.fixture(scope="session")
def int4_model(exports: Exports) -> Path:
    return exports.model("int4", original_context=SWITCH, dtype="float32")


@pytest.fixture(scope="session")
def fp16_model(exports: Exports) -> Path:
    return exports.model("fp16", original_context=SWITCH, dtype="float32")


@pytest.fixture(scope="session")
def session() -> Callable[[Path], onnxruntime.InferenceSession]:
    import onnxruntime

    def open_session(graph: Path) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    return open_session


def _stock_model(checkpoint: Checkpoint) -> Phi3ForCausalLM:
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

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
