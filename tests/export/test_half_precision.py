"""Half-precision builds compute the right thing. The CPU provider runs those for CUDA too, with casts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from phi3v.export.build import export_model

pytestmark = pytest.mark.torch

Open = Callable[[Path], onnxruntime.InferenceSession]


@pytest.fixture(scope="module", params=["fp16-cpu", "fp16-cuda", "int4-cuda", "fp16-webgpu", "int4-webgpu"])
def half_model(request: pytest.FixtureRequest, checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    precision, device = request.param.split("-")
    out = tmp_path_factory.mktemp("half") / request.param
    return export_model(checkpoint_dir, out, precision=precision, device=device)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


def both(session: Open, models: tuple[Path, Path], graph: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    half = {name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in feed.items()}
    outputs = [session(m / graph).run(None, f)[0] for m, f in zip(models, (feed, half), strict=True)]
    assert [output.dtype.name for output in outputs] == ["float32", "float16"]
    return outputs


def test_vision_equals_the_fp32_build(fp32_model: Path, half_model: Path, session: Open) -> None:
    pixels = np.random.default_rng(0).standard_normal((1, 3, 3, 336, 336), dtype=np.float32)
    feed = {"pixel_values": pixels, "image_sizes": np.array([[336, 672]])}
    assert cosine(*both(session, (fp32_model, half_model), "vision.onnx", feed)) > 0.9999


def test_embedding_equals_the_fp32_build(fp32_model: Path, half_model: Path, session: Open) -> None:
    feed = {"input_ids": np.array([[5, -1, 7]]), "image_features": np.ones((1, 64), dtype=np.float32)}
    full, half = both(session, (fp32_model, half_model), "embedding.onnx", feed)
    np.testing.assert_array_equal(half, full.astype(np.float16))


def test_decoder_is_close_to_the_fp32_build(fp32_model: Path, half_model: Path, session: Open) -> None:
    embeds = np.random.default_rng(0).standard_normal((1, 300, 64), dtype=np.float32)
    feed = {"inputs_embeds": embeds, "attention_mask": np.ones((1, 300), dtype=np.int64)}
    empty = np.zeros((1, 4, 0, 16), dtype=np.float32)
    feed |= {f"past_key_values.{layer}.{kind}": empty for layer in (0, 1) for kind in ("key", "value")}
    least = 0.9999 if half_model.name.startswith("fp16") else 0.95
    assert cosine(*both(session, (fp32_model, half_model), "text.onnx", feed)) > least
