"""What a person should know of the model that answers; for stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi3v.models.folder import ModelDir


def model_notices(model: ModelDir, *, named: bool) -> list[str]:
    """Which model answers, unless it was `named`, and how far its answers go."""
    from phi3v.models.folder import BUILTIN

    builtin = model.path == BUILTIN
    which = "the built-in model; `phi3v pull` fetches Phi-3-vision itself" if builtin else str(model.path)
    lines = [] if named else [f"phi3v: answering with {model.name} ({which})"]
    if model.about:
        lines.append(f"phi3v: {model.name} {model.about}")
    if model.synthetic:
        lines.append("phi3v: this model has random weights; its answers mean nothing")
    return lines
