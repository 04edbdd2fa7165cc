"""What `phi3v chat` keeps from one run to the next: the lines that were typed, and the last conversation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .transcript import save

if TYPE_CHECKING:
    from phi3v.types import Turn

_VARIABLE = "XDG_STATE_HOME"


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """One turn of a conversation that was kept: the question, the images' paths and URLs, the answer."""

    prompt: str
    images: tuple[str, ...]
    answer: str


def history_file() -> Path | None:
    """Where typed lines are kept; None where no folder can be made for them."""
    folder = _folder()
    return folder and folder / "chat-history"


def save_conversation(model: str, history: Sequence[Turn]) -> None:
    """Keep a conversation for `--continue`, unless an image came through a pipe and cannot be read again."""
    folder = _folder()
    if folder and history and all(isinstance(image, str) for turn in history for image in turn.request.images):
        file = folder / "last-chat.json"
        save(file, model, history)
        file.chmod(0o600)


def read_conversation() -> list[SavedTurn]:
    """The conversation that was kept last. Raises click.UsageError where there is none, or it cannot be read."""
    folder = _folder()
    file = folder and folder / "last-chat.json"
    if file is None or not file.exists():
        raise click.UsageError("there is no conversation to continue; begin one with: phi3v chat IMAGE")
    try:
        turns = json.loads(file.read_text(encoding="utf-8"))["turns"]
        return [SavedTurn(turn["prompt"], tuple(turn["images"]), turn["answer"]) for turn in turns]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise click.UsageError(f"{file} holds no conversation ({exc}); delete it and begin a new one") from exc


def _folder() -> Path | None:
    """Where the XDG base directory specification keeps what a program remembers, for its user alone."""
    given = os.environ.get(_VARIABLE, "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
        folder = base / "phi3v"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return None
    return folder
