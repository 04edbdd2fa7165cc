"""The parts of a request under pytest-benchmark, on a small model with random weights: `pytest tests/bench/speed.py`.

For watching one machine over time (`--benchmark-autosave`, `--benchmark-compare`); `phi3v bench run` compares backends.
Not named test_*, so that a run of all tests leaves it out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import phi3v
from phi3v import hd
from phi3v.bench.cases import PROMPT, make_jpeg
from phi3v.engine import Engine
from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.images.load import load_image

Benchmark = Callable[..., Any]
TWELVE_MEGAPIXELS = (4000, 3000)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("speed")
    dims = tiny_dims(hidden_size=256, layers=4, heads=8, context=4096)
    folder = export_model(write_random_checkpoint(root / "checkpoint", dims), root / "model")
    with phi3v.load(folder) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def photo() -> bytes:
    return make_jpeg(*TWELVE_MEGAPIXELS)


@pytest.fixture(scope="module")
def image(photo: bytes) -> Image.Image:
    return load_image(photo)


def test_decode_of_a_12_megapixel_jpeg(benchmark: Benchmark, photo: bytes) -> None:
    benchmark(load_image, photo)


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_hd_transform(benchmark: Benchmark, image: Image.Image, num_crops: int) -> None:
    benchmark(hd.transform, image, num_crops)


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_first_token(benchmark: Benchmark, engine: Engine, image: Image.Image, num_crops: int) -> None:
    benchmark(engine.generate, PROMPT, [image], num_crops=num_crops, max_new_tokens=1)


def test_64_tokens_after_an_image(benchmark: Benchmark, engine: Engine, image: Image.Image) -> None:
    benchmark(engine.generate, PROMPT, [image], num_crops=1, max_new_tokens=64)


def test_loading(benchmark: Benchmark, engine: Engine) -> None:
    benchmark(lambda folder: phi3v.load(folder).close(), Path(engine.model.path))
