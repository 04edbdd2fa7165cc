"""Reads one file of a model folder, or refuses it by its name, with what is wrong and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ModelError, ModelFolderError

REPAIR = "fetch or export the model again"
"""What to do about a damaged folder that no pull has written."""

HEAD_BYTES = 64
"""Bytes of a file that tell whether it is a Git LFS pointer."""


def require_file(path: Path) -> None:
    """Refuse a file that is missing, empty or a Git LFS pointer. Raises ModelFolderError."""
    if not path.is_file():
        raise ModelFolderError(f"{path.parent} is not a complete model folder: {path.name} is missing; {REPAIR}")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise ModelFolderError(f"{path} is empty; {REPAIR}")
    refuse_lfs_pointer(path, head, ModelFolderError)


def refuse_lfs_pointer(path: Path, head: bytes, error: type[ModelError]) -> None:
    """Raise `error` when the file begins as what `git clone` without Git LFS puts in place of a large file."""
    if head.startswith(b"version https://git-lfs"):
        raise error(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelFolderError."""
    require_file(path)
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as exc:
        raise ModelFolderError(f"{path} is not readable JSON ({exc}); {REPAIR}") from exc
    if not isinstance(parsed, dict):
        raise ModelFolderError(f"{path} holds a {type(parsed).__name__}, not an object; {REPAIR}")
    return parsed


@contextmanager
def name_in_errors(file: Path) -> Iterator[Path]:
    """Turn what a value of the wrong kind raises into a ModelFolderError that names the file the value came from."""
    try:
        yield file
    except ModelFolderError:
        raise
    except KeyError as exc:
        raise ModelFolderError(f"{file} lacks {exc}; {REPAIR}") from exc
    except (TypeError, AttributeError, ValueError, OverflowError, IndexError) as exc:
        raise ModelFolderError(f"{file} holds a value of the wrong kind ({exc}); {REPAIR}") from exc
