"""A warm engine for tests that leave it as it was, and a place for an engine of a test's own."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exports import Exports
from PIL import Image
from warm_home import Home

from phi3v.models.folder import BUILTIN
from phi3v.models.manifest import Manifest


@pytest.fixture(scope="session")
def demo_model(exports: Exports) -> Path:
    """The model of `phi3v bench synth`: its answers, up to 131072 tokens, are as long as a test wants them."""
    return exports.model()


@pytest.fixture(scope="session")
def talking_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano, asked without images too: what it says then means nothing, and is quickly said."""
    folder = tmp_path_factory.mktemp("talking") / "nano"
    shutil.copytree(BUILTIN, folder)
    replace(Manifest.read(folder), needs_image=False).write(folder)
    return folder


@pytest.fixture(scope="module")
def model(talking_nano: Path) -> Path:
    """The model that answers. Modules whose answers must be long replace it by the demo model."""
    return talking_nano


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A warm engine that no test harms."""
    root = tmp_path_factory.mktemp("shared")
    Image.new("RGB", (300, 200), (200, 30, 30)).save(root / "photo.webp")
    Image.effect_noise((500, 400), 80).save(root / "noise.png")
    (root / "garbage.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with Home(root, model).warm() as home:
        yield home


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Home:
    """A place for an engine of one test."""
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "photo.webp")
    return Home(tmp_path, model)
