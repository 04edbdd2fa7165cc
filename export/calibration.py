"""What a model is calibrated on: a handful of prompts and drawn images, and any such prompts as tensors.

Drawn by code, because an installed package has no example images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..errors import CheckpointError, OptionError
from ..hd import CROP, HdImage, transform
from ..images.load import load_image
from ..images.suffixes import IMAGE_SUFFIXES
from ..prompt import PromptLayout
from ..tokenizer import Tokenizer
from .checkpoint import Checkpoint

Calibration = Sequence[tuple[str, Sequence[Image.Image]]]
"""Prompts, each with its RGB images."""

MOST_TOKENS = 4096
"""Tokens of all prompts together: a layer's activations for them are all held at once, 0.3 GB at the real width."""

_DESCRIBE = "Describe this image."
_LINES = (
    "Minutes of the harbour board, 14 March",
    "Present: A. Okafor, J. Lindqvist (chair), M. Duarte",
    "1. Repairs to the north pier cost $48,250.00 so far.",
    "2. Why are the ferries late? See table 3 on page 12.",
    "3. \u201cNo vessel above 900 t\u201d remains the rule (vote 5:2).",
    "Next meeting: Tuesday, 9:30, room B-207; bring plans.",
)
_BARS = (("Jan", 31), ("Feb", 54), ("Mar", 12), ("Apr", 87), ("May", 66), ("Jun", 43))
_COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40))


@dataclass(frozen=True, slots=True)
class CalibrationInputs:
    """Prompts as the model takes them: ids [L], image slots being negative; `images` in the order of the slots."""

    ids: list[npt.NDArray[np.int64]]
    images: list[HdImage]


def default_calibration() -> list[tuple[str, list[Image.Image]]]:
    """A page of text with a photograph, a bar chart, and a prompt without an image: about 700 tokens."""
    question = "List three rules for writing a clear report, and say why each one matters."
    return [("Read this page.", [_draw_page()]), ("Which bar is highest?", [_draw_chart()]), (question, [])]


def read_calibration(folder: Path) -> list[tuple[str, list[Image.Image]]]:
    """What a folder holds: each image with the question in the text file of its name, and text files without image.

    `chart.png` is asked what is in `chart.txt`, or to be described. Raises OptionError for what is no folder, holds
    nothing of this, or holds text that is not UTF-8; ImageError for an image that cannot be read.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder} is no folder; give one that holds images, and questions in text files")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    texts = {file.stem: _read_question(file) for file in files if file.suffix == ".txt"}
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    asked = [(texts.get(file.stem, _DESCRIBE), [load_image(file)]) for file in images]
    alone = [(text, list[Image.Image]()) for stem, text in texts.items() if stem not in {file.stem for file in images}]
    if not asked + alone:
        raise OptionError(f"{folder} holds no image and no text file (.txt); put some into it")
    return asked + alone


def _read_question(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as exc:
        raise OptionError(f"{file} is not UTF-8 text; save it as UTF-8") from exc


def prepare_calibration(checkpoint: Checkpoint, calibration: Calibration) -> CalibrationInputs:
    """Tokenise the prompts and cut each image into one crop beside the global one.

    Raises OptionError if there is nothing to calibrate on, or more than MOST_TOKENS; CheckpointError for a token that
    the model has no embedding of; PromptError for a prompt that does not name its images.
    """
    tokenizer = Tokenizer(checkpoint.path / "tokenizer.json")
    ids, images = [], []
    for prompt, given in calibration:
        layout = PromptLayout.of(prompt, len(given))
        crops = [transform(given[number], 1) for number in layout.order]
        ids.append(np.array(layout.input_ids(tokenizer, [image.plan.image_tokens for image in crops])))
        images += crops
        if (total := sum(map(len, ids))) > MOST_TOKENS:
            raise OptionError(f"the calibration prompts have over {total} tokens; allowed: {MOST_TOKENS}; give fewer")
        if (largest := int(ids[-1].max())) >= (size := checkpoint.dims.decoder.vocab_size):
            file = checkpoint.path / "tokenizer.json"
            raise CheckpointError(f"{file} numbers a token {largest}, beyond config.json's vocab_size {size}")
    if not ids:
        raise OptionError("there is no prompt to calibrate on; give one or more, or leave the choice to phi3v")
    return CalibrationInputs(ids, images)


def _draw_page() -> Image.Image:
    page = Image.new("RGB", (CROP, CROP), (250, 249, 246))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    for number, line in enumerate(_LINES):
        draw.text((12, 10 + 22 * number), line, fill=(20, 20, 20), font=font)
    page.paste(_draw_photograph(CROP - 24, CROP - 166), (12, 154))
    return page


def _draw_photograph(width: int, height: int) -> Image.Image:
    """Light that falls off, two soft shapes and grain: the smooth surfaces and the noise of a photograph."""
    down, across = np.mgrid[0:height, 0:width] / height
    light = np.stack([0.9 - 0.5 * down, 0.7 - 0.3 * down + 0.1 * across, 0.4 + 0.3 * down], axis=-1)
    for centre, radius, colour in (((0.4, 0.5), 0.25, (0.5, -0.2, -0.3)), ((0.7, 1.3), 0.35, (-0.5, 0.1, 0.4))):
        distance = np.hypot(down - centre[0], across - centre[1])
        light += np.exp(-((distance / radius) ** 4))[..., np.newaxis] * np.array(colour)
    light += np.random.default_rng(0).normal(0, 0.06, light.shape)
    return Image.fromarray((255 * light.clip(0, 1)).astype(np.uint8))


def _draw_chart() -> Image.Image:
    chart = Image.new("RGB", (CROP, CROP), "white")
    draw, font = ImageDraw.Draw(chart), ImageFont.load_default()
    draw.text((110, 8), "Visitors per month (thousands)", fill="black", font=font)
    for value in range(0, 101, 20):
        y = 300 - 2.6 * value
        draw.line((40, y, 326, y), fill=(200, 200, 200))
        draw.text((12, y - 6), str(value), fill="black", font=font)
    for number, (month, value) in enumerate(_BARS):
        left = 52 + 46 * number
        draw.rectangle((left, 300 - 2.6 * value, left + 30, 300), fill=_COLOURS[number % len(_COLOURS)])
        draw.text((left + 6, 306), month, fill="black", font=font)
    return chart
