"""What genai raises, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InferenceError


@contextmanager
def mapped_errors(stage: str) -> Iterator[None]:
    """genai raises bare RuntimeError for everything; give it our root and say what is left of the request."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        raise InferenceError(f"onnxruntime-genai failed during {stage}: {first_line(exc)}") from exc


def first_line(exc: BaseException) -> str:
    """An exception's message in one line."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
