"""The images that clients send: data: URLs, bare base64, and http(s) URLs of the hosts that are allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phi3v import CroppedImage
from phi3v.images.cropped import NumCrops
from phi3v.images.fetch import fetch_url
from phi3v.images.local_file import MAX_FILE_BYTES
from phi3v.images.naming import shown_url
from phi3v.images.source import HeldFile, is_http
from phi3v.images.url_guard import UrlGuard

from .errors import ApiError

_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_CROPS: dict[str, NumCrops] = {"low": 1, "auto": "auto", "high": 16, "original": 16}
"""OpenAI's `detail` as a number of crops."""

Image = HeldFile | str | CroppedImage


class ImageReader:
    """Makes images of what clients send. Nothing is decoded or fetched before the request is prepared."""

    def __init__(self, media_domains: Sequence[str]) -> None:
        self._guard = UrlGuard(media_domains)

    def read(self, given: str, param: str, *, detail: str | None = None, num_crops: NumCrops | None = None) -> Image:
        """One image. `param` names its place in the request. Raises ApiError if it is neither a URL nor base64."""
        image = self._read(given.strip(), param)
        crops = num_crops if num_crops is not None else _CROPS[detail] if detail is not None else None
        return image if crops is None else CroppedImage(image, crops)

    def _read(self, given: str, param: str) -> HeldFile | str:
        if given[:5].lower() == "data:":
            return given
        if is_http(given):
            self._guard.check(given)
            return HeldFile(shown_url(given), lambda: fetch_url(given, MAX_FILE_BYTES, guard=self._guard))
        if given and _BASE64.fullmatch(given):
            return f"data:;base64,{given.replace('-', '+').replace('_', '/')}"
        raise ApiError(
            400,
            f"{param} is {given[:40]!r}; allowed: a data: URL, base64, or an http(s) URL",
            param=param,
            code="invalid_image",
        )
