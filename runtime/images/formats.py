"""Which of Pillow's decoders may open a file, by its first bytes."""

from __future__ import annotations

from ..errors import ImageError, MissingDependencyError
from ..machine.install import install_line

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The Pillow decoders that are always allowed ("JPEG" covers the MPO of many cameras). Some others start programs."""

_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})


def allowed_formats(data: bytes, name: str) -> tuple[str, ...]:
    """The decoders for a file. AVIF and HEIC are added where something here reads them.

    Raises MissingDependencyError for HEIC without pillow-heif, ImageError for AVIF where Pillow was built without.
    """
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _AVIF or (brand in (b"mif1", b"msf1") and b"avif" in data[12:64]):
        if not reads_avif():
            raise ImageError(f"{name} is AVIF, which this Pillow cannot read; run: pip install -U pillow")
        return ("AVIF",)
    if brand not in _HEIC:
        return FORMATS
    try:
        import pillow_heif
    except ImportError as exc:
        raise MissingDependencyError(f"{name} is HEIC, which needs pillow-heif; run: {install_line('heic')}") from exc
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def reads_avif() -> bool:
    """Whether Pillow was built with AVIF."""
    from PIL import features

    return bool(features.check("avif"))


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    from importlib.util import find_spec

    return find_spec("pillow_heif") is not None
