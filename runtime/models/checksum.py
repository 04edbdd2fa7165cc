"""Whether bytes are what the hub lists: SHA-256 for large files, git's own SHA-1 for the small ones it keeps in git."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


class Checksum:
    """Digests of bytes fed piece by piece; git's own digest needs their total number, `git_size`, beforehand."""

    def __init__(self, git_size: int | None = None) -> None:
        self.fed = 0
        self._sha256 = hashlib.sha256()
        # Source: git's object format; the name of a blob is the SHA-1 of this header and the content.
        header = b"" if git_size is None else f"blob {git_size}\0".encode()
        self._git = hashlib.sha1(header, usedforsecurity=False) if header else None

    def update(self, data: bytes) -> None:
        """Feed the next bytes."""
        self.fed += len(data)
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        """SHA-256 so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def git_blob(self) -> str | None:
        """Git's name for a file of exactly these bytes, in hex; None when their number was not given."""
        return None if self._git is None else self._git.hexdigest()


def checksum_file(path: Path, *, git_size: int | None = None, on_read: Callable[[int], None] | None = None) -> Checksum:
    """Digests of a whole file; `on_read` is told the number of bytes read, piece by piece."""
    checksum = Checksum(git_size)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            checksum.update(piece)
            if on_read is not None:
                on_read(len(piece))
    return checksum
