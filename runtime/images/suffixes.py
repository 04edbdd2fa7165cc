"""How the names of image files end."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Of the formats that `load_image` decodes, in lower case."""
