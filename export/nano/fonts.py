"""The two sans-serif families of nano's world, and how wide their characters are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

from ...errors import MissingDependencyError

_FOLDERS = ("/usr/share/fonts/truetype", "/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts")
FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf")


@dataclass(frozen=True, slots=True)
class Font:
    """One face at one size in pixels."""

    face: str
    size: float

    def advances(self, text: str) -> list[float]:
        """Width of every character in pixels."""
        widths = _widths(self.face)
        return [widths[ord(character)] * self.size for character in text]

    def width(self, text: str) -> float:
        """Width of the whole text."""
        return sum(self.advances(text))

    def drawable(self, scale: float) -> ImageFont.FreeTypeFont:
        """What Pillow draws with when a pixel is drawn as `scale` pixels."""
        return _load(self.face, round(self.size * scale * 4) / 4)


@cache
def font_path(face: str) -> str:
    """The file of a face. Raises MissingDependencyError."""
    for folder in _FOLDERS:
        for path in sorted(Path(folder).expanduser().rglob(face)):
            return str(path)
    raise MissingDependencyError(
        f"the font {face} was not found below {', '.join(_FOLDERS)}; "
        "on Debian run `apt-get install fonts-dejavu-core fonts-liberation`"
    )


@cache
def _load(face: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(face), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _widths(face: str) -> tuple[float, ...]:
    """Advance of the code points below 127, for a size of one pixel."""
    font = _load(face, 256.0)
    return tuple(font.getlength(chr(code)) / 256 for code in range(127))
