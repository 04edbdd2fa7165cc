"""Tells this user's other programs that a server runs, by a file in the folder of the warm engines' sockets."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..warm.place import check_folder, supported

if TYPE_CHECKING:
    from phi3v.models.folder import ModelDir


@contextlib.contextmanager
def announced(url: str, model: ModelDir) -> Iterator[None]:
    """Announce a server within the block. Raises WarmEngineError if others may enter the folder."""
    if not supported():
        yield
        return
    folder = check_folder(create=True)
    assert folder is not None
    file = folder / f"serve-{os.getpid()}.json"
    file.write_text(json.dumps({"url": url, "name": model.name, "model": str(model.path.resolve())}), encoding="utf-8")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def find_server(model: Path) -> tuple[str, str] | None:
    """The address of a server of this user's that has this model folder, and what it calls the model.

    What a killed server has left is removed. Raises WarmEngineError if others may enter the folder.
    """
    folder = check_folder() if supported() else None
    for file in sorted(folder.glob("serve-*.json")) if folder is not None else []:
        try:
            os.kill(int(file.stem.removeprefix("serve-")), 0)
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["model"] == str(model.resolve()):
                return str(found["url"]), str(found["name"])
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
