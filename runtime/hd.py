"""The HD transform: an RGB image -> normalised crops, equal to the reference processor.

Source of every rule: Phi-3-vision's `image_processing_phi3_v.py`. The resize is Pillow's bilinear, the padding white,
the global crop PyTorch's bicubic (a = -0.75, align_corners false, no antialiasing) of the padded, normalised image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import OptionError
from .images.cropped import MAX_CROPS, NumCrops
from .machine.threads import wanted_threads

CROP = 336
"""Side of a crop in pixels: the input size of CLIP ViT-L/14-336."""

CROP_BYTES = 3 * CROP * CROP * 4
"""Bytes of a crop in float32."""

CROP_TOKENS = 144
"""Tokens a crop costs: 24 x 24 patches, merged 2 x 2."""

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
_BICUBIC_A = -0.75

_ROWS = 42
"""Rows of the global crop that are made at once: their source, of up to 1344 columns, stays in a core's cache."""

_MOST_THREADS = 8
_WORTH_THREADS = 12
"""Fewer tasks than these are done before the threads have started."""

Float32 = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32] | npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class HdPlan:
    """The layout of an image of some size, known before any pixel is read.

    `resized` is the width and height after scaling, in the image's own orientation; `rows` x `columns` crops cover
    the padded image.
    """

    resized: tuple[int, int]
    rows: int
    columns: int

    @property
    def image_size(self) -> tuple[int, int]:
        """Padded height and width in pixels."""
        return self.rows * CROP, self.columns * CROP

    @property
    def crops(self) -> int:
        """Crops the vision tower encodes, the global one included."""
        return self.rows * self.columns + 1

    @property
    def image_tokens(self) -> int:
        """Tokens the image costs: (h*w + 1)*144 + 1 + (h + 1)*12, separators included."""
        return self.crops * CROP_TOKENS + 1 + (self.rows + 1) * 12


@dataclass(frozen=True, slots=True)
class HdImage:
    """An image as the vision graph takes it: `crops` [1 + rows*columns, 3, 336, 336], the global one first."""

    crops: Pixels
    plan: HdPlan


def plan(width: int, height: int, num_crops: NumCrops) -> HdPlan:
    """Lay out an image of `width` x `height` pixels in at most `num_crops` (1 to 16) crops.

    "auto" takes the fewest crops that do not scale the image down; if even 16 do, the layout for 16. If the reference
    would scale a side to 0 pixels (an image 336 times longer than high), the side is kept at 1.
    """
    if num_crops == "auto":
        layouts = (plan(width, height, crops) for crops in range(1, MAX_CROPS))
        large = (layout for layout in layouts if max(layout.resized) >= max(width, height))
        return next(large, plan(width, height, MAX_CROPS))
    if not 1 <= num_crops <= MAX_CROPS:
        raise OptionError(f"num_crops is {num_crops}; allowed: 1 to {MAX_CROPS}")
    long, short = max(width, height), min(width, height)
    ratio = long / short
    scale = 1
    while (scale + 1) * math.ceil((scale + 1) / ratio) <= num_crops:
        scale += 1
    resized = (CROP * scale, max(1, int(CROP * scale / ratio)))
    across, down = scale, math.ceil(resized[1] / CROP)
    if width < height:
        return HdPlan(resized[::-1], rows=across, columns=down)
    return HdPlan(resized, rows=down, columns=across)


def most_crops(num_crops: NumCrops) -> int:
    """The most crops, the global one aside, that an image can be cut into."""
    return MAX_CROPS if num_crops == "auto" else num_crops


def transform(image: Image.Image, num_crops: NumCrops, dtype: npt.DTypeLike = np.float32) -> HdImage:
    """Scale, pad, normalise and cut an RGB image; `dtype` is float32 or float16, the type of the crops."""
    layout = plan(*image.size, num_crops)
    canvas = _padded(image, layout)
    crops = np.empty((layout.crops, 3, CROP, CROP), dtype=dtype)
    table = _lookup().astype(dtype)

    def write_crop(number: int) -> None:
        row, column = divmod(number - 1, layout.columns)
        part = canvas[row * CROP : (row + 1) * CROP, column * CROP : (column + 1) * CROP]
        for channel in range(3):  # "clip" writes without a buffer; no index is out of range
            np.take(table[channel], part[..., channel], out=crops[number, channel], mode="clip")

    def write_global_rows(first: int) -> None:
        rows = slice(first, first + _ROWS)
        crops[0, :, rows] = _global_rows(canvas, rows)

    tasks: list[Callable[[], None]] = [partial(write_global_rows, first) for first in range(0, CROP, _ROWS)]
    tasks += [partial(write_crop, number) for number in range(1, layout.crops)]
    _run_all(tasks)
    return HdImage(crops, layout)


def stack(images: Sequence[HdImage]) -> tuple[Pixels, npt.NDArray[np.int64], list[int]]:
    """Stack images: pixel_values [N, K, 3, 336, 336], image_sizes [N, 2], tokens of each.

    K is the largest number of crops among them, zero crops behind the real ones. (The reference pads to
    1 + num_crops; the vision graph skips zero crops either way.)
    """
    sizes = np.array([image.plan.image_size for image in images], dtype=np.int64)
    tokens = [image.plan.image_tokens for image in images]
    if len(images) == 1:
        return images[0].crops[np.newaxis], sizes, tokens
    most = max(image.plan.crops for image in images)
    pixels = np.zeros((len(images), most, 3, CROP, CROP), dtype=images[0].crops.dtype)
    for row, image in zip(pixels, images, strict=True):
        row[: len(image.crops)] = image.crops
    return pixels, sizes, tokens


def _run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks on as many threads as there are cores, if they are many: numpy leaves the interpreter to others."""
    threads = min(_MOST_THREADS, wanted_threads() or os.cpu_count() or 1)
    if threads == 1 or len(tasks) < _WORTH_THREADS:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def _padded(image: Image.Image, layout: HdPlan) -> npt.NDArray[np.uint8]:
    """The scaled image centred on white, [H, W, 3]. A portrait is scaled lying down, as the reference does."""
    portrait = image.width < image.height
    lying = image.transpose(Image.Transpose.TRANSPOSE) if portrait else image
    height, width = sorted(layout.image_size) if portrait else layout.image_size
    scaled = lying.resize((max(layout.resized), min(layout.resized)), Image.Resampling.BILINEAR)
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    top = (height - scaled.height) // 2
    canvas[top : top + scaled.height] = np.asarray(scaled)
    return canvas.transpose(1, 0, 2) if portrait else canvas


@lru_cache(maxsize=1)
def _lookup() -> Float32:
    """float32 [3, 256]: every channel value normalised with the reference's own float32 arithmetic."""
    values = np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255)
    return ((values[np.newaxis] - _MEAN[:, np.newaxis]) / _STD[:, np.newaxis]).astype(np.float32)


def _global_rows(canvas: npt.NDArray[np.uint8], which: slice) -> Float32:
    """Some rows of the global crop: bicubic resize of [H, W, 3], four taps per axis, normalised: [3, rows, 336].

    Resizing first and normalising then is the same, since the weights of the taps add up to one.
    """
    rows, row_weights = _taps(canvas.shape[0])
    columns, column_weights = _taps(canvas.shape[1])
    low = _sum_of_taps([canvas[rows[which, tap]] * row_weights[which, tap, np.newaxis, np.newaxis] for tap in range(4)])
    small = _sum_of_taps([low[:, columns[:, tap]] * column_weights[:, tap, np.newaxis] for tap in range(4)])
    return ((small / np.float32(255) - _MEAN) / _STD).transpose(2, 0, 1)


def _sum_of_taps(taps: list[Float32]) -> Float32:
    total, *others = taps
    for tap in others:
        total += tap
    return total


@lru_cache(maxsize=32)
def _taps(size: int) -> tuple[npt.NDArray[np.intp], Float32]:
    """Indices [336, 4] and weights [336, 4] of the bicubic taps along one axis of `size` pixels."""
    scale = size / CROP
    centre = (np.arange(CROP) + 0.5) * scale - 0.5
    first = np.floor(centre)
    t = (centre - first)[:, np.newaxis]
    distance = np.abs(np.concatenate([t + 1, t, 1 - t, 2 - t], axis=1))
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    weights = np.where(distance <= 1, near, far).astype(np.float32)
    index = first.astype(np.intp)[:, np.newaxis] + np.arange(-1, 3)
    return np.clip(index, 0, size - 1), weights
