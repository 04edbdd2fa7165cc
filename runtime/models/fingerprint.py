"""Two hashes of a model folder, for two questions; both take milliseconds, as large files are not read.

`hash_contents`: do two folders hold the same model? A copy on another machine has the same hash. It misses changed
bytes of a large file that kept its name and size; `phi3v verify` finds those.
`fingerprint_files`: have this folder's files been replaced since? A copy has another fingerprint, and so has a file
that was replaced by the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_SMALL_FILE = 1 << 20
"""Files below this size are hashed by content too."""


def hash_contents(folder: Path) -> str:
    """Sixteen hex digits over every file's name and size, and the content of small files.

    Journals of `phi3v batch` and benchmark records hold it, so it must not change.
    """
    digest = hashlib.sha256()
    for file in _files(folder):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}\n".encode())
        if size < _SMALL_FILE:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def fingerprint_files(folder: Path) -> str:
    """A hash over the folder's real path, every file's name, size, inode and times, and the content of small files.

    A warm engine compares it before each answer with that of the files it has loaded.
    """
    digest = hashlib.sha256(os.path.realpath(folder).encode(errors="surrogateescape"))
    for file in _files(folder):
        status = file.stat()
        facts: tuple[object, ...] = (file.name, status.st_size, status.st_dev, status.st_ino)
        digest.update(repr((*facts, status.st_mtime_ns, status.st_ctime_ns)).encode(errors="surrogateescape"))
        if status.st_size < _SMALL_FILE:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
