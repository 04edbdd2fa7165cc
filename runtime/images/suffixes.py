"""How the names of image files end."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Of the formats that are always read, in lower case."""

AVIF_SUFFIXES = (".avif",)
HEIC_SUFFIXES = (".heic", ".heif")


def readable_suffixes() -> tuple[str, ...]:
    """Those of all images that can be read with what is installed."""
    from .formats import reads_avif, reads_heic

    return (*IMAGE_SUFFIXES, *AVIF_SUFFIXES * reads_avif(), *HEIC_SUFFIXES * reads_heic())
