"""The one check that every command gives its images before a model is loaded for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi3v.images.load import ImageSource


def check_images(images: Sequence[ImageSource]) -> None:
    """Refuse files that are missing, too large or not images, by their first bytes. Raises ImageError.

    Checked are paths and data: URLs, also those that a client of the warm engine has read (warm/wire.py).
    Standard input and http(s) URLs are not read yet, so the engine checks them when it decodes them.
    """
    from phi3v.images.load import check_image  # loads Pillow and numpy, which a client of the warm engine never needs

    for image in images:
        if isinstance(image, str) or getattr(image, "from_disk", False):
            check_image(image)  # type: ignore[arg-type]
