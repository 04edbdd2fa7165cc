"""Notices that the files of a model are others than those that were loaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_SMALL_FILE = 1 << 20


def fingerprint(folder: Path) -> str:
    """A hash that any exchange of a model's files changes, in milliseconds.

    Every file's name, size, inode and times of change, and the content of small files; large ones are not read.
    """
    digest = hashlib.sha256(os.path.realpath(folder).encode(errors="surrogateescape"))
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        status = file.stat()
        facts: tuple[Any, ...] = (file.name, status.st_size, status.st_dev, status.st_ino)
        digest.update(repr((*facts, status.st_mtime_ns, status.st_ctime_ns)).encode(errors="surrogateescape"))
        if status.st_size < _SMALL_FILE:
            digest.update(file.read_bytes())
    return digest.hexdigest()
