"""Fetches one file of the hub into its cache: verified, and continued where an earlier try stopped.

Does not use hf_hub_download, because that (in 2.4) fetches a file again from its first byte when the process that began
it has ended, and compares sizes only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from http import HTTPStatus
from typing import BinaryIO

from ...errors import ModelFetchError
from ...models.checksum import Checksum, checksum_file
from .cache import RepoCache
from .client import build_hf_headers, constants, errors, get_session, hf_hub_url, hf_raise_for_status, httpx
from .listing import HubFile, explained, pause, timeout_s

_CHUNK = 1 << 20


def fetch(file: HubFile, commit: str, cache: RepoCache, on_bytes: Callable[[int], None]) -> Checksum:
    """Bring one file's verified bytes to `cache.blob(file)`; returns their checksum.

    `on_bytes` is told how many bytes were kept; a negative count retracts bytes that must be fetched again. A blob that
    is there already is used only if its checksum is right. Raises ModelFetchError or DiskSpaceError.
    """
    blob, partial = cache.blob(file), cache.partial(file)
    if blob.is_file():
        checksum = checksum_file(blob, git_size=file.git_size)
        if file.matches(checksum):
            on_bytes(file.size)
            return checksum
        blob.unlink()
    blob.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(cache.repo, file.path, revision=commit)
    with explained(cache.repo, commit, file.path):
        for _ in range(2):
            with partial.open("ab+") as out:
                checksum = _Transfer(file, url, out, on_bytes).run()
                out.flush()
                os.fsync(out.fileno())  # a blob under its final name must survive a power cut
            if file.matches(checksum):
                partial.replace(blob)
                return checksum
            partial.unlink()
            on_bytes(-checksum.fed)
    raise ModelFetchError(
        f"{file.path} came twice with the wrong checksum; the server or a proxy alters it: check HF_ENDPOINT "
        f"({constants.ENDPOINT}) and the network, then run the same command again"
    )


class _Transfer:
    """Fills one partial file, request after request, each continuing where the last one stopped."""

    def __init__(self, file: HubFile, url: str, out: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._file, self._url, self._out, self._on_bytes = file, url, out, on_bytes
        self._checksum = Checksum(file.git_size)

    def run(self) -> Checksum:
        """Send requests until every byte is there. Raises when further tries are pointless."""
        self._take_up()
        fruitless = 0
        while (before := self._checksum.fed) < self._file.size:
            failure: Exception | None = None
            try:
                self._request()
            except (httpx.HTTPError, errors.HfHubHTTPError) as exc:
                failure = exc
            fruitless = 0 if self._checksum.fed > before else fruitless + 1
            if self._checksum.fed < self._file.size:
                pause(fruitless, failure)
        return self._checksum

    def _take_up(self) -> None:
        """Read what an earlier try has left."""
        self._out.seek(0)
        while piece := self._out.read(_CHUNK):
            self._checksum.update(piece)
        self._on_bytes(self._checksum.fed)
        if self._checksum.fed > self._file.size:
            self._start_over()

    def _request(self) -> None:
        offset = self._checksum.fed
        headers = build_hf_headers(library_name="phi3v") | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with get_session().stream("GET", self._url, headers=headers, timeout=timeout_s()) as response:
            if offset and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                # A server that cannot continue here can still begin; the piece, if kept, would be refused for ever.
                self._start_over()
                self._request()
                return
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            if offset and not _continues(response, offset):
                self._start_over()
            for piece in response.iter_raw():
                self._add(piece)

    def _add(self, piece: bytes) -> None:
        if self._checksum.fed + len(piece) > self._file.size:
            raise ModelFetchError(f"{self._file.path}: the server sends more than the {self._file.size} bytes it lists")
        self._out.write(piece)
        self._checksum.update(piece)
        self._on_bytes(len(piece))

    def _start_over(self) -> None:
        self._on_bytes(-self._checksum.fed)
        self._out.truncate(0)
        self._checksum = Checksum(self._file.git_size)


def _continues(response: httpx.Response, offset: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
