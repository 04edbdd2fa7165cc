"""The vision graph equals the reference: CLIP from transformers and the loop over pictures and crop grids."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import VISION, vision_shapes

pytestmark = pytest.mark.torch

Open = Callable[[Path], onnxruntime.InferenceSession]

GRIDS = [
    [(1, 1)],
    [(2, 3), (1, 1), (4, 4)],
    [(1, 4), (3, 2)],
    [(16, 1)],
]


class LoopReference:
    """The model's own formulation, picture by picture."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        clip = checkpoint.dims.clip
        self.width = clip.hidden_size
        self.weights = {
            name.removeprefix(VISION): torch.from_numpy(checkpoint.float32(name))
            for name in vision_shapes(checkpoint.dims)
        }
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
        config = CLIPVisionConfig(
            **{name: getattr(clip, name) for name in names}, patch_size=clip.patch_size, hidden_act="quick_gelu"
        )
        self.clip = CLIPVisionModel(config).eval()
        prefix = "img_processor.vision_model."
        known = self.clip.state_dict()
        own = "vision_model." if next(iter(known)).startswith("vision_model.") else ""
        loaded = {
            own + name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)
        }
        assert set(loaded) <= set(known)
        self.clip.load_state_dict(loaded, strict=False)

    def __call__(self, pixels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            rows = [self.picture(torch.from_numpy(p), *(s // 336)) for p, s in zip(pixels, sizes, strict=True)]
            return self.project(torch.cat(rows)).numpy()

    def picture(self, crops: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        states = self.clip(crops[: high * wide + 1], output_hidden_states=True).hidden_states[-2][:, 1:]
        merged = states.reshape(-1, 12, 2, 12, 2, self.width).transpose(2, 3).reshape(-1, 12, 12, 4 * self.width)
        sub = merged[1:].reshape(high, wide, 12, 12, -1).transpose(1, 2).reshape(high * 12, wide * 12, -1)
        return torch.cat([self.lines(sub), self.weights["glb_GN"][0], self.lines(merged[0])])

    def lines(self, rows: torch.Tensor) -> torch.Tensor:
        end = self.weights["sub_GN"].reshape(1, 1, -1).expand(len(rows), 1, -1)
        return torch.cat([rows, end], dim=1).reshape(-1, rows.shape[-1])

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        first, second = (
            (self.weights[f"img_projection.{n}.weight"], self.weights[f"img_projection.{n}.bias"]) for n in (0, 2)
        )
        return functional.linear(functional.gelu(functional.linear(rows, *first)), *second)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> LoopReference:
    return LoopReference(checkpoint)


def pictures(grids: list[tuple[int, int]], padding: int = 0) -> dict[str, np.ndarray]:
    slots = max(high * wide + 1 for high, wide in grids) + padding
    pixels = np.random.default_rng(0).standard_normal((len(grids), slots, 3, 336, 336), dtype=np.float32)
    return {"pixel_values": pixels, "image_sizes": np.array(grids, dtype=np.int64) * 336}


@pytest.mark.parametrize("grids", GRIDS, ids=str)
def test_features_equal_the_loop(
    fp32_model: Path, session: Open, reference: LoopReference, grids: list[tuple[int, int]]
) -> None:
    feed = pictures(grids)
    features = session(fp32_model / "vision.onnx").run(None, feed)[0]
    assert len(features) == sum((high * wide + 1) * 144 + 1 + (high + 1) * 12 for high, wide in grids)
    np.testing.assert_allclose(features, reference(feed["pixel_values"], feed["image_sizes"]), atol=1e-4)


def test_padding_crops_change_nothing(fp32_model: Path, session: Open) -> None:
    vision = session(fp32_model / "vision.onnx")
    padded = pictures([(1, 2), (1, 1)], padding=5)
    tight = {**padded, "pixel_values": padded["pixel_values"][:, :3]}
    np.testing.assert_allclose(vision.run(None, padded)[0], vision.run(None, tight)[0], atol=1e-5)


def test_too_few_crops_for_the_grid_raise(fp32_model: Path, session: Open) -> None:
    feed = pictures([(2, 2)])
    feed["pixel_values"] = feed["pixel_values"][:, :3]
    with pytest.raises(Exception, match="out of data bounds"):
        session(fp32_model / "vision.onnx").run(None, feed)


def test_quantised_tower_stays_close(int4_model: Path, session: Open, reference: LoopReference) -> None:
    feed = pictures([(1, 2)])
    features = session(int4_model / "vision.onnx").run(None, feed)[0]
    expected = reference(feed["pixel_values"], feed["image_sizes"])
    cosine = np.sum(features * expected) / np.linalg.norm(features) / np.linalg.norm(expected)
    assert cosine > 0.999


def test_unused_layers_are_not_in_the_graph(fp32_model: Path) -> None:
    graph = (fp32_model / "vision.onnx").read_bytes()
    assert b"encoder.layers.1." in graph
    assert b"encoder.layers.2." not in graph
    assert b"post_layernorm" not in graph
