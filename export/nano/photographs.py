"""Photographs, silhouettes and scanned pages of the world, which come with scikit-image and scikit-learn.

nano is scored on them and never trained: it must own that it does not know them.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image

from ...errors import MissingDependencyError
from .canvas import Canvas
from .samples import Sample
from .strangers import ask_stranger

_FILES = {
    "skimage/data": (
        *(f"{name}.png" for name in ("astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee")),
        *(f"{name}.png" for name in ("coins", "grass", "gravel", "horse", "ihc", "moon", "motorcycle_left")),
        *(f"{name}.png" for name in ("motorcycle_right", "page", "text")),
        *(f"{name}.jpg" for name in ("hubble_deep_field", "retina", "rocket")),
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}


def photograph_sample(random: Random, held_out: bool = False) -> Sample:
    """A crop of one of the pictures, from two fifths of its shorter side to all of it, in any shape near a square."""
    picture = _load(random.choice(_paths()))
    side = min(picture.size) * random.uniform(0.4, 1.0)
    width, height = (round(side * random.uniform(0.75, 1.0)) for _ in range(2))
    left, top = random.randint(0, picture.width - width), random.randint(0, picture.height - height)
    crop = picture.crop((left, top, left + width, top + height))
    return ask_stranger(random, Canvas.over(crop).finish())


@cache
def _paths() -> tuple[Path, ...]:
    """The files. Raises MissingDependencyError."""
    return tuple(_package(folder) / name for folder, names in _FILES.items() for name in names)


def _package(folder: str) -> Path:
    package, _, below = folder.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            f"the photographs that nano is scored on come with {package}, which is not installed; "
            "run: pip install scikit-image scikit-learn"
        )
    return Path(spec.origin).parent / below


@cache
def _load(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")
