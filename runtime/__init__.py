"""phi3v: ask Phi-3-vision about images, locally, through ONNX Runtime GenAI.

    import phi3v

    with phi3v.load() as engine:
        print(engine.generate("What is this?", ["photo.jpg"]).text)

Importing this package loads neither numpy nor the engine; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import Phi3VError

if TYPE_CHECKING:
    from .answer_format import Choices, JsonSchema, Regex
    from .async_engine import AsyncEngine
    from .engine import Engine, load
    from .images.cropped import CroppedImage
    from .options import GenerationOptions
    from .session import Session
    from .stream import TokenStream
    from .types import (
        GenerationRequest,
        GenerationResult,
        PastTurn,
        SamplingParams,
        Timings,
        Token,
        Usage,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncEngine",
    "Choices",
    "CroppedImage",
    "Engine",
    "GenerationOptions",
    "GenerationRequest",
    "GenerationResult",
    "JsonSchema",
    "PastTurn",
    "Phi3VError",
    "Regex",
    "SamplingParams",
    "Session",
    "Timings",
    "Token",
    "TokenStream",
    "Usage",
    "load",
]

_MODULES = {
    ".answer_format": ("Choices", "JsonSchema", "Regex"),
    ".async_engine": ("AsyncEngine",),
    ".engine": ("Engine", "load"),
    ".images.cropped": ("CroppedImage",),
    ".options": ("GenerationOptions",),
    ".session": ("Session",),
    ".stream": ("TokenStream",),
    ".types": (
        "GenerationRequest",
        "GenerationResult",
        "PastTurn",
        "SamplingParams",
        "Timings",
        "Token",
        "Usage",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'phi3v' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
