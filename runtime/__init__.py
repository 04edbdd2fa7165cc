"""phi3v: ask Phi-3-vision about pictures, locally, through ONNX Runtime GenAI.

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
    from .engine import Engine, TokenStream, load
    from .session import Session
    from .types import GenerationRequest, GenerationResult, SamplingParams, Timings, Token, Usage

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "GenerationRequest",
    "GenerationResult",
    "Phi3VError",
    "SamplingParams",
    "Session",
    "Timings",
    "Token",
    "TokenStream",
    "Usage",
    "load",
]

_HOMES = {"Engine": ".engine", "TokenStream": ".engine", "load": ".engine", "Session": ".session"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'phi3v' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, ".types"), __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
