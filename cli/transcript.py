"""A conversation as a file: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi3v.types import Turn


def save(path: Path, model: str, history: Sequence[Turn]) -> None:
    """Write the conversation, atomically: as JSON if the suffix is .json, else as Markdown."""
    text = _format_json(model, history) if path.suffix == ".json" else _format_markdown(model, history)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _format_json(model: str, history: Sequence[Turn]) -> str:
    return json.dumps({"model": model, "turns": [_turn_record(turn) for turn in history]}, indent=1) + "\n"


def _turn_record(turn: Turn) -> dict[str, Any]:
    result = turn.result
    return {
        "prompt": turn.request.prompt,
        "images": [str(image) for image in turn.request.images],
        "answer": result.text,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
    }


def _format_markdown(model: str, history: Sequence[Turn]) -> str:
    parts = [f"# A conversation with {model}"]
    for turn in history:
        shown = "".join(f"\n\n![{image}](<{image}>)" for image in map(str, turn.request.images))
        parts += [f"## {turn.request.prompt}{shown}", turn.result.text]
    return "\n\n".join(parts) + "\n"
