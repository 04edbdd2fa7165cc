"""What to type to install a part of phi3v that is missing, by how phi3v itself was installed."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_NAME = "phi3v"


def install_line(*extras: str) -> str:
    """The pip command that adds `extras`, such as "cpu": from the checkout, wheel, repository or index it came from."""
    wanted = f"[{','.join(extras)}]"
    try:
        direct = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
        options, place = _read_origin(direct)
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        options, place = "", None
    target = f"{_NAME}{wanted}" if place is None else place.format(wanted)
    return f"pip install {options}{shlex.quote(target)}"


def _read_origin(direct: dict[str, object]) -> tuple[str, str | None]:
    """pip's options, and what to install with {} in place of the extras. The fields are those of PEP 610."""
    url = str(direct.get("url") or "")
    if version_control := direct.get("vcs_info"):
        kind, commit = version_control["vcs"], version_control["commit_id"]  # type: ignore[index]
        return "", f"{_NAME}{{}} @ {kind}+{_escape(url)}@{commit}"
    if urlsplit(url).scheme == "file":
        path = url2pathname(unquote(urlsplit(url).path))
        folder = direct.get("dir_info")
        if not Path(path).exists():
            return "", None
        editable = "-e " if isinstance(folder, dict) and folder.get("editable") else ""
        return editable, f"{_escape(path)}{{}}"
    return "", f"{_NAME}{{}} @ {_escape(url)}" if url else None


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
