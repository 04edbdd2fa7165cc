"""Requests made ready by several threads, ahead of the process that answers them.

Requests in a row about the same images are siblings: their images are read once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

from ..backend import Preprocessor
from ..errors import Phi3VError
from ..images.load import LoadedImage, read_image
from ..images.source import HeldFile
from ..prepare import PreparedRequest, attempt
from ..types import GenerationRequest


@dataclass(frozen=True, slots=True)
class ReadyRequest:
    """A request in tensors, or why it cannot be answered. `has_siblings`: others ask about the same images."""

    prepared: PreparedRequest | Phi3VError
    has_siblings: bool = False


def prepare_ahead(
    source: Preprocessor, requests: Iterable[GenerationRequest], workers: int, ahead: int
) -> Iterator[ReadyRequest]:
    """Yield every request in the order given. At most `ahead` prepared ones wait."""
    waiting: deque[Future[ReadyRequest]] = deque()
    with ThreadPoolExecutor(workers, "phi3v-prepare") as pool:
        for request, images in _with_shared_images(requests):
            waiting.append(pool.submit(_prepare, source, request, images))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _with_shared_images(
    requests: Iterable[GenerationRequest],
) -> Iterator[tuple[GenerationRequest, _SharedImages | None]]:
    """Each request, and the images that it shares with the one before or behind it."""
    for _, group in groupby(requests, key=_sibling_key):
        siblings = list(group)
        images = _SharedImages(siblings[0]) if len(siblings) > 1 else None
        yield from ((request, images) for request in siblings)


def _sibling_key(request: GenerationRequest) -> object:
    """Equal for requests about the same images: named, held as bytes, or one object; unlike any other for the rest."""
    images = getattr(request, "images", ())
    if not images or not all(isinstance(image, str | os.PathLike | bytes | HeldFile) for image in images):
        return object()
    return tuple(id(image) if isinstance(image, HeldFile) else image for image in images), request.background


class _SharedImages:
    """The images of several requests. The first thread that needs them reads them."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._read: list[LoadedImage] | Phi3VError | None = None

    def read(self) -> list[LoadedImage]:
        """Raises ImageError, the same each time."""
        with self._lock:
            if self._read is None:
                try:
                    self._read = [read_image(image, self._request.background) for image in self._request.images]
                except Phi3VError as exc:
                    self._read = exc
        if isinstance(self._read, Phi3VError):
            raise self._read
        return self._read


def _prepare(source: Preprocessor, request: GenerationRequest, images: _SharedImages | None) -> ReadyRequest:
    if images is None:
        return ReadyRequest(attempt(source, request))
    try:
        read = images.read()
    except Phi3VError as exc:
        return ReadyRequest(exc)
    prepared = attempt(source, replace(request, images=tuple(one.image for one in read)))
    if isinstance(prepared, PreparedRequest):
        notes = tuple(note for one in read for note in one.notes)
        prepared = replace(prepared, request=request, notes=notes + prepared.notes)
    return ReadyRequest(prepared, has_siblings=True)
