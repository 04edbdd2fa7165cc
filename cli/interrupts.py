"""What Ctrl-C does while the engine underneath holds the interpreter: loading, vision and prefill are one long call."""

from __future__ import annotations

import contextlib
import signal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


class Interrupt:
    """While the engine computes: Python would hear Ctrl-C late, so that with `ends_program` it kills at once; else it
    sets `heard`, whoever prints the answer ends it at the next token, and a second Ctrl-C kills.

    From `answering` on Python runs between tokens: Ctrl-C is an exception again, or sets `heard`, and kills no more. A
    job told to ignore it, such as one behind nohup, still does.
    """

    def __init__(self, *, ends_program: bool) -> None:
        self.heard = False
        self._before = signal.getsignal(signal.SIGINT)
        self._computing = signal.SIG_DFL if ends_program else self._hear
        self._answering = self._before if ends_program else self._hear

    def answering(self) -> None:
        """Tokens are coming: Python runs between them, and no Ctrl-C needs to kill any more."""
        self._install(self._answering)

    def _hear(self, *_: object) -> None:
        self.heard = True

    def _install(self, handler: Any) -> None:
        if self._before not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, handler)

    def __enter__(self) -> Self:
        self._install(self._computing)
        if signal.getsignal(signal.SIGINT) == self._hear:
            _second_one_kills()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._install(self._before)


def killable(stream: Iterable[T]) -> Iterator[T]:
    """What a stream gives, with Ctrl-C killing until its first item: before it are vision and prefill."""
    with Interrupt(ends_program=True) as interrupt:
        for item in stream:
            interrupt.answering()
            yield item


def _second_one_kills() -> None:
    """Let the system put its own handler, which kills, in place of Python's as it delivers the next Ctrl-C.

    System V's signal() does just that; Python cannot ask for it, and where the C library lacks it nothing changes.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.signal.restype = libc.sysv_signal.restype = ctypes.c_void_p
        libc.signal.argtypes = libc.sysv_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        pythons = libc.signal(signal.SIGINT, None)  # SIG_DFL for a moment; what it returns is Python's own handler
        libc.sysv_signal(signal.SIGINT, pythons)
