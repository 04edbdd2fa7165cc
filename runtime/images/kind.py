"""Says what a file is, by its first bytes, where it is not an image that we read, so that an error can name it."""

from __future__ import annotations

import base64
import binascii
import json
import re

_STARTS = {
    b"%PDF-": "a PDF, which is read from a file that is named, a page at a time; send an image of the page",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "compressed with gzip",
    b"8BPS": "a Photoshop file",
    b"\0\0\x01\0": "an icon (ICO)",
    b"gimp xcf": "a GIMP file",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\x1aE\xdf\xa3": "a video",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the image itself with git lfs pull",
}
_TAG = re.compile(rb"<([!?]?[A-Za-z][\w:-]*)")
_SAMPLE = 4096


def describe_kind(data: bytes) -> str | None:
    """Name what the bytes are, as in "it is ..."; None where they are nothing that is known here."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        return "a video"
    text = data[:_SAMPLE].lstrip(b"\xef\xbb\xbf \t\r\n")
    if found := _TAG.match(text):
        return _describe_markup(text.lower(), found[1].lower())
    if text[:1] in (b"{", b"[") and _is_json(data):
        return f"JSON, not an image: {_quote(text)}"
    if is_base64_image(text):
        return "an image in base64, as text; decode it first (base64 -d), or put data:image/png;base64, in front"
    return f"text, not an image: {_quote(text)}" if text and _is_text(text) else None


def is_base64_image(text: bytes) -> bool:
    """Whether text is the base64 of an image's first bytes."""
    start = b"".join(text[:64].split())[:16]
    try:
        decoded = base64.b64decode(start, validate=True)
    except binascii.Error:
        return False
    return decoded.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"))


def _describe_markup(text: bytes, tag: bytes) -> str:
    if tag == b"svg" or (b"<svg" in text and b"<html" not in text):
        return "an SVG drawing, which is not read; save it as PNG"
    if (tag in (b"!doctype", b"html", b"head", b"body") and b"<html" in text) or b"<body" in text:
        return "a web page (HTML), not an image; give the address of the image itself"
    return "XML, not an image" if tag == b"?xml" else "markup, not an image"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _is_text(text: bytes) -> bool:
    try:
        decoded = text.decode("utf-8", errors="strict" if len(text) < _SAMPLE - 4 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in decoded)


def _quote(text: bytes) -> str:
    """The beginning, on one line."""
    line = " ".join(text[:240].decode("utf-8", errors="replace").split())
    return repr(line if len(line) <= 80 else f"{line[:77]}...")
