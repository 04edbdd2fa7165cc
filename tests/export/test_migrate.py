"""A build in the old layout answers, after migration, as the same model exported in today's layout does."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_layout import write_old_layout
from PIL import Image

import phi3v
from phi3v import hd
from phi3v.errors import ModelFolderError, OldLayoutError
from phi3v.export.migrate import migrate

pytestmark = pytest.mark.torch

PICTURES = [
    Image.effect_mandelbrot((700, 400), (-2, -1.5, 1, 1.5), 100).convert("RGB"),
    Image.new("RGB", (90, 200), "teal"),
]


@pytest.fixture(scope="module", params=[None, 17], ids=["free crops", "17 crops"])
def folders(
    request: pytest.FixtureRequest, fp32_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Today's folder, and the old one migrated."""
    root = tmp_path_factory.mktemp("old")
    old = write_old_layout(fp32_model, root / "old", crops=request.param)
    return fp32_model, migrate(old, root / "new")


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("num_crops", [1, 4])
def test_32_tokens_are_the_same(folders: tuple[Path, Path], count: int, num_crops: int) -> None:
    answers = []
    for folder in folders:
        with phi3v.load(folder) as engine:
            answers.append(engine.generate("What is it?", PICTURES[:count], num_crops=num_crops, max_new_tokens=32))
    assert answers[0].token_ids == answers[1].token_ids
    assert len(answers[0].token_ids) >= 1


@pytest.mark.parametrize("count", [1, 2])
def test_the_decoder_sees_the_same_embeddings(folders: tuple[Path, Path], session, count: int) -> None:  # type: ignore[no-untyped-def]
    pixels, sizes, _ = hd.stack([hd.transform(picture, 4) for picture in PICTURES[:count]])
    seen = []
    for folder in folders:
        (features,) = session(folder / "vision.onnx").run(None, {"pixel_values": pixels, "image_sizes": sizes})
        ids = np.concatenate([[1, 5], np.full(len(features), -1), [7]])[None].astype(np.int64)
        seen.append(session(folder / "embedding.onnx").run(None, {"input_ids": ids, "image_features": features})[0])
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)


def test_no_weights_are_copied(folders: tuple[Path, Path]) -> None:
    new = folders[1]
    for file in new.glob("*.data"):
        assert file.samefile(new.parent / "old" / file.name)


def test_the_old_folder_says_how_to_migrate_it(fp32_model: Path, tmp_path: Path) -> None:
    old = write_old_layout(fp32_model, tmp_path / "old")
    with pytest.raises(OldLayoutError, match="phi3v migrate"):
        phi3v.load(old)


def edit_config(folder: Path, part: str, **changes: Any) -> None:
    """Change a part of a folder's genai_config.json; None removes a key."""
    config = json.loads((folder / "genai_config.json").read_text())
    changed = config["model"][part] | changes
    config["model"][part] = {key: value for key, value in changed.items() if value is not None}
    (folder / "genai_config.json").write_text(json.dumps(config))


def test_an_old_build_that_names_no_vision_output_can_be_migrated_as_it_is_told(
    fp32_model: Path, tmp_path: Path
) -> None:
    old = write_old_layout(fp32_model, tmp_path / "old")
    edit_config(old, "vision", outputs=None)
    with pytest.raises(OldLayoutError, match=r"takes no image_features.*phi3v migrate"):
        phi3v.load(old)
    answers = []
    for folder in (fp32_model, migrate(old, tmp_path / "new")):
        with phi3v.load(folder) as engine:
            answers.append(engine.generate("What is it?", PICTURES, num_crops=1, max_new_tokens=8))
    assert answers[0].token_ids == answers[1].token_ids


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("embedding", {"inputs": {"input_ids": "input_ids"}}, r"vision\.onnx has no visual_features"),
        ("vision", {"outputs": {"visual_features": "visual_features"}}, r"vision\.onnx has no visual_features"),
    ],
)
def test_a_folder_sent_to_migrate_with_todays_graphs_is_told_why_it_cannot_be_migrated(
    fp32_model: Path, tmp_path: Path, part: str, changes: dict[str, Any], reason: str
) -> None:
    mixed = shutil.copytree(fp32_model, tmp_path / "mixed")
    edit_config(mixed, part, **changes)
    with pytest.raises(OldLayoutError, match="phi3v migrate"):
        phi3v.load(mixed)
    with pytest.raises(ModelFolderError, match=f"{reason}.*cannot be migrated"):
        migrate(mixed, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]


def test_an_old_vision_graph_beside_todays_embedding_is_refused(fp32_model: Path, tmp_path: Path) -> None:
    mixed = write_old_layout(fp32_model, tmp_path / "mixed")
    shutil.copyfile(fp32_model / "embedding.onnx", mixed / "embedding.onnx")
    with pytest.raises(ModelFolderError, match=r"embedding\.onnx takes image_features already.*cannot be migrated"):
        migrate(mixed, tmp_path / "new")


@pytest.mark.parametrize("left", [[], ["genai_config.json"]])
def test_a_folder_that_is_not_an_old_build_is_refused_by_name(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "old").mkdir()
    for name in left:
        (tmp_path / "old" / name).write_text('{"model": {"vision": {}}}')
    with pytest.raises(ModelFolderError, match=r"genai_config\.json"):
        migrate(tmp_path / "old", tmp_path / "new")


def test_a_folder_in_todays_layout_is_refused(fp32_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="needs no migration"):
        migrate(fp32_model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failed_migration_leaves_nothing(fp32_model: Path, tmp_path: Path) -> None:
    old = write_old_layout(fp32_model, tmp_path / "old")
    (old / "vision.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelFolderError):
        migrate(old, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
