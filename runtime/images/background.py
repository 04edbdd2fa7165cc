"""What stands behind an image's transparent pixels."""

from __future__ import annotations

from ..errors import OptionError

DEFAULT_BACKGROUND = "white"
"""Paper, on which most transparent drawings and texts are meant to be seen."""

KEEP_HIDDEN = "drop"
"""In place of a colour: drop the alpha channel and show what it hid, as the reference does."""


def parse_background(background: str) -> tuple[int, int, int] | None:
    """The colour's red, green and blue, 0 to 255; None for "drop". Raises OptionError for anything else."""
    from PIL import ImageColor  # not needed where nobody asks for another colour

    if background == KEEP_HIDDEN:
        return None
    try:
        red, green, blue = ImageColor.getrgb(background)[:3]
    except (ValueError, AttributeError, TypeError) as exc:
        raise OptionError(
            f"background is {background!r}; allowed: a colour such as white or #ffcc00, or {KEEP_HIDDEN}, which shows "
            "what transparency hides"
        ) from exc
    return red, green, blue
