"""The embedding graph fills every slot in order, and raises rather than fill one wrongly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from phi3v.export.checkpoint import Checkpoint
from phi3v.export.dims import EMBED
from phi3v.export.embedding import write_embedding

pytestmark = pytest.mark.torch

Open = Callable[[Path], onnxruntime.InferenceSession]

IDS = np.array([[5, -1, -1, 7], [-3, 2, 1, 1]], dtype=np.int64)


def features(count: int) -> np.ndarray:
    return np.arange(count * 64, dtype=np.float32).reshape(count, 64)


def test_slots_of_all_rows_are_filled_in_order(fp32_model: Path, session: Open, checkpoint: Checkpoint) -> None:
    feed = {"input_ids": IDS, "image_features": features(3)}
    embeds = session(fp32_model / "embedding.onnx").run(None, feed)[0]
    np.testing.assert_array_equal(embeds[IDS < 0], features(3))
    np.testing.assert_array_equal(embeds[IDS >= 0], checkpoint.read(EMBED)[IDS[IDS >= 0]])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_mismatch_of_slots_and_features_raises(fp32_model: Path, session: Open, count: int) -> None:
    with pytest.raises(Exception, match="ScatterND"):
        session(fp32_model / "embedding.onnx").run(None, {"input_ids": IDS, "image_features": features(count)})


def test_features_without_slots_raise(int4_model: Path, session: Open) -> None:
    feed = {"input_ids": np.array([[5, 6]]), "image_features": features(1)}
    with pytest.raises(Exception, match="ScatterND"):
        session(int4_model / "embedding.onnx").run(None, feed)


def test_text_needs_no_features(int4_model: Path, session: Open) -> None:
    feed = {"input_ids": np.array([[5]]), "image_features": features(0)}
    assert session(int4_model / "embedding.onnx").run(None, feed)[0].shape == (1, 1, 64)


def test_int4_build_keeps_the_table_in_half_the_bytes(fp32_model: Path, int4_model: Path) -> None:
    sizes = [(folder / "embedding.onnx.data").stat().st_size for folder in (fp32_model, int4_model)]
    assert sizes[0] == 2 * sizes[1]


@pytest.mark.parametrize("table", ["float16", "float32"])
@pytest.mark.parametrize("ids", [IDS, np.array([[5]]), np.array([[-1, -1, -1]])], ids=["mixed", "text", "slots"])
def test_the_graph_for_gpus_gives_the_same_rows_and_never_waits_for_the_number_of_slots(
    checkpoint: Checkpoint, tmp_path: Path, session: Open, ids: np.ndarray, table: str
) -> None:
    given = {"input_ids": ids, "image_features": features(np.count_nonzero(ids < 0)).astype(np.float16)}
    found = []
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.onnx"
        write_embedding(checkpoint, path, device=device, dtype="float16", table_dtype=table)
        found.append(session(path).run(None, given)[0])
    np.testing.assert_array_equal(*found)
    assert not {"NonZero", "ScatterND"} & {
        node.op_type for node in onnx.load(path, load_external_data=False).graph.node
    }
