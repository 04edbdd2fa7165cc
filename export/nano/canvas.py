"""A picture in the making, and what is known of every 14-pixel patch of it.

All coordinates are those of the 336 x 336 pixels the model sees. The picture itself may be larger and of another shape:
it is then scaled and padded by the runtime's own plan for one crop.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ... import hd
from ...errors import OptionError
from ...hd import CROP
from ..dims import PATCHES
from .fonts import Font

PATCH = CROP // PATCHES
SLOTS = 3
"""Characters a patch is labelled with, from left to right."""

BLANK = 0
CHARACTER_CLASSES = 95
"""Blank, then the code points 33 to 126."""

SHAPES = ("circle", "square", "triangle", "star", "diamond")
BAR = len(SHAPES) + 1
OBJECT_CLASSES = 7
COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (245, 205, 40),
    "orange": (245, 130, 30),
    "purple": (130, 50, 170),
    "black": (25, 25, 25),
    "gray": (130, 130, 130),
}
COLOUR_CLASSES = 1 + len(COLOURS)

Colour = tuple[int, int, int]
Point = tuple[float, float]
Place = tuple[int, int]
"""Row and column of the 28-pixel cell (12 x 12, one token each) a character stands in."""

WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A finished picture: `original` as a file would hold it, `pixels` uint8 [side, side, 3] as the model sees it.

    `zoom` is the number of crops along a side, each of 336 pixels. Characters are at pixels; `objects` and `colours`
    [side / 14, side / 14] are of patches.
    """

    original: Image.Image
    pixels: npt.NDArray[np.uint8]
    characters: tuple[tuple[float, float, str], ...]
    objects: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]
    zoom: int = 1

    def labels(self) -> npt.NDArray[np.uint8]:
        """Character classes [patches, patches, 3], from left to right."""
        return label_grid(self.characters, PATCHES * self.zoom, PATCHES * self.zoom)


def label_grid(
    characters: Sequence[tuple[float, float, str]], rows: int, columns: int, left: float = 0, top: float = 0
) -> npt.NDArray[np.uint8]:
    """Character classes [rows, columns, 3] of the patches of a window that starts at `left`, `top`."""
    labels = np.zeros((rows, columns, SLOTS), dtype=np.uint8)
    filled = np.zeros((rows, columns), dtype=np.int8)
    for x, y, character in sorted(characters):
        column, row = int((x - left) // PATCH), int((y - top) // PATCH)
        if 0 <= row < rows and 0 <= column < columns and filled[row, column] < SLOTS:
            labels[row, column, filled[row, column]] = ord(character) - 32
            filled[row, column] += 1
    return labels


class Canvas:
    """Draws onto a picture of `size` pixels (width, height), in units of which 336 are the side the model sees.

    With a `zoom` of 2 the model sees the picture in 2 x 2 crops, and a unit is two of its pixels.
    """

    def __init__(self, size: tuple[int, int] = (CROP, CROP), ground: Colour = WHITE, zoom: int = 1) -> None:
        self.image = Image.new("RGB", size, ground)
        self._draw = ImageDraw.Draw(self.image)
        self._zoom, plan = zoom, hd.plan(*size, zoom * zoom)
        if (plan.rows, plan.columns) != (zoom, zoom):
            raise OptionError(f"a picture of {size[0]} x {size[1]} is not seen in {zoom} x {zoom} crops")
        self._resized = plan.resized
        self._corner = tuple((CROP * zoom - side) // 2 for side in plan.resized)
        self.width, self.height = (side / zoom for side in plan.resized)
        self.left, self.top = (side / zoom for side in self._corner)
        self._scale = size[0] / self.width if size[0] >= size[1] else size[1] / self.height
        self._patch = PATCH / zoom
        self._characters: list[tuple[float, float, str]] = []
        self._objects = np.zeros((PATCHES * zoom, PATCHES * zoom), dtype=np.uint8)
        self._colours = np.zeros((PATCHES * zoom, PATCHES * zoom), dtype=np.uint8)

    @classmethod
    def over(cls, image: Image.Image) -> Canvas:
        """On a picture that is drawn already."""
        canvas = cls(image.size)
        canvas.image.paste(image)
        return canvas

    def text(self, x: float, baseline: float, text: str, font: Font, fill: Colour) -> list[Place]:
        """Write one line from `x` on; the cell of every character, spaces included."""
        point = self._point(x, baseline)
        self._draw.text(point, text, font=font.drawable(self._scale), fill=fill, anchor="ls")
        return self.note(x, baseline, text, font)

    def note(self, x: float, baseline: float, text: str, font: Font) -> list[Place]:
        """Label a line that stands in the picture without writing it; the cell of every character."""
        y = baseline - 0.34 * font.size
        places, cell = [], 2 * self._patch
        for character, advance in zip(text, font.advances(text), strict=True):
            centre = x + advance / 2
            if character != " ":
                self.count_as(centre, y, character)
            places.append((int(y // cell), int(centre // cell)))
            x += advance
        return places

    def centred(self, middle: float, baseline: float, text: str, font: Font, fill: Colour) -> list[Place]:
        """Write one line around `middle`."""
        return self.text(middle - font.width(text) / 2, baseline, text, font, fill)

    def rectangle(self, box: tuple[float, float, float, float], fill: Colour) -> None:
        """Fill left, top, right, bottom."""
        self._draw.rectangle([*self._point(*box[:2]), *self._point(*box[2:])], fill=fill)

    def ellipse(self, box: tuple[float, float, float, float], fill: Colour) -> None:
        """Fill the ellipse in a box."""
        self._draw.ellipse([*self._point(*box[:2]), *self._point(*box[2:])], fill=fill)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._point(*point) for point in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Colour) -> None:
        """Draw a thin line."""
        self._draw.line([self._point(*p) for p in points], fill=fill, width=max(1, round(self._scale)))

    def mark(self, box: tuple[float, float, float, float], kind: int, colour: str) -> None:
        """Label the patches of a box with an object class and a colour."""
        left, top, right, bottom = (max(0, int(side / self._patch + 0.5)) for side in box)
        columns, rows = slice(left, right), slice(top, bottom)
        self._objects[rows, columns] = kind
        self._colours[rows, columns] = 1 + list(COLOURS).index(colour)

    def count_as(self, x: float, y: float, character: str) -> None:
        """Label a drawn thing as if a character stood at its middle, so that things can be read, and so counted."""
        self._characters.append((x * self._zoom, y * self._zoom, character))

    def finish(self) -> Picture:
        """Scale and pad as the runtime will."""
        image = self.image
        if image.size != self._resized:
            image = image.resize(self._resized, Image.Resampling.BILINEAR)
        pixels = np.full((CROP * self._zoom, CROP * self._zoom, 3), 255, dtype=np.uint8)
        (left, top), (width, height) = self._corner, self._resized
        pixels[top : top + height, left : left + width] = np.asarray(image)
        return Picture(self.image, pixels, tuple(self._characters), self._objects, self._colours, self._zoom)

    def _point(self, x: float, y: float) -> Point:
        return (x - self.left) * self._scale, (y - self.top) * self._scale


def any_size(random: Random, width: int, height: int, zoom: int = 1) -> tuple[int, int]:
    """Pixels of an original of that shape; most are not scaled at all, to save time."""
    scale = zoom * (1.0 if random.random() < 0.6 else random.uniform(0.9, 3.0 / zoom))
    return round(width * scale), round(height * scale)


def compressed(picture: Picture, quality: int) -> Picture:
    """The same after a JPEG file of that quality (of what the model sees: close enough to teach it the artefacts)."""
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=quality)
    return replace(picture, pixels=np.asarray(Image.open(file)))


def luminance(colour: Colour) -> float:
    """Brightness, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def ground(random: Random) -> Colour:
    """White, light or dark."""
    if random.random() < 0.35:
        return WHITE
    low, high = (190, 255) if random.random() < 0.6 else (0, 90)
    return (random.randint(low, high), random.randint(low, high), random.randint(low, high))


def ink(random: Random, below: Colour, contrast: float = 110) -> Colour:
    """A colour that can be read on `below`."""
    for _ in range(20):
        if random.random() < 0.5:
            colour = (random.randrange(256), random.randrange(256), random.randrange(256))
        else:
            colour = random.choice(((0, 0, 0), WHITE, (30, 30, 60), (250, 240, 210)))
        if abs(luminance(colour) - luminance(below)) > contrast:
            return colour
    return (0, 0, 0) if luminance(below) > 128 else WHITE
