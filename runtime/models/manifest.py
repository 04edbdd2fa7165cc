"""The record beside a model's files: what they are, how large, and their SHA-256.

Written last and atomically, so a folder that has it was complete; `phi3v.models.folder` checks it at every load.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError
from .checksum import checksum_file
from .folder import MANIFEST

FORMAT = 1
_SCRATCH = f".{MANIFEST}.new"


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's record. Raises ModelFolderError when there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelFolderError(f"{folder} has no readable {MANIFEST}, which lists what it must hold ({exc})") from exc
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ModelFolderError(f"{folder / MANIFEST} lists no files")
    return manifest


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Replace the record at one stroke."""
    scratch = folder / _SCRATCH
    scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    scratch.replace(folder / MANIFEST)


def describe_files(folder: Path, known: dict[str, str] | None = None) -> dict[str, Any]:
    """Size and SHA-256 of every file in a folder; a checksum in `known` is believed."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (MANIFEST, _SCRATCH))
    hashes = {file.name: (known or {}).get(file.name) or checksum_file(file).sha256 for file in files}
    return {"files": {file.name: file.stat().st_size for file in files}, "sha256": hashes}


def verify(folder: Path, *, on_read: Callable[[int], None] | None = None) -> dict[str, str]:
    """Read every file and compare with the record: {file: what is wrong}, empty when all is well.

    The finding is kept in the record: a damaged model does not load until it is repaired.
    """
    manifest = read_manifest(folder)
    problems = {}
    for name, size in manifest["files"].items():
        if problem := _problem(folder / name, size, manifest.get("sha256", {}).get(name), on_read):
            problems[name] = problem
    if sorted(problems) != manifest.get("damaged", []):
        write_manifest(folder, manifest | {"damaged": sorted(problems)})
    return problems


def _problem(path: Path, size: int, sha256: str | None, on_read: Callable[[int], None] | None) -> str:
    if not path.is_file():
        return "is missing"
    checksum = checksum_file(path, on_read=on_read)
    if checksum.fed != size:
        return f"has {checksum.fed} bytes instead of {size}"
    return "has other content than recorded" if sha256 is not None and checksum.sha256 != sha256 else ""
