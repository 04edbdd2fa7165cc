"""What Ctrl-C does while the engine computes: loading, vision and prefill are long calls that hold the interpreter."""

from __future__ import annotations

import contextlib
import signal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


class Interrupt:
    """Decides what Ctrl-C does inside a `with` block.

    At first the engine computes, and Python could react to Ctrl-C only later. With `ends_program`, Ctrl-C therefore
    kills the process at once. Without, it sets `heard`, so that whoever prints the answer ends it at the next token,
    and a second Ctrl-C kills.

    From the call of `answering` on, Python runs between tokens, and Ctrl-C no longer kills: it raises KeyboardInterrupt
    with `ends_program`, and sets `heard` without. A job that was told to ignore Ctrl-C, as by nohup, ignores it always.
    """

    def __init__(self, *, ends_program: bool) -> None:
        self.heard = False
        self._before = signal.getsignal(signal.SIGINT)
        self._computing = signal.SIG_DFL if ends_program else self._hear
        self._answering = self._before if ends_program else self._hear

    def answering(self) -> None:
        """Say that tokens are coming: Python runs between them, so that Ctrl-C need not kill any more."""
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
    """Yield what a stream gives. Until the first item, which vision and prefill precede, Ctrl-C kills the process."""
    with Interrupt(ends_program=True) as interrupt:
        for item in stream:
            interrupt.answering()
            yield item


def _second_one_kills() -> None:
    """Have the system replace Python's handler by its own, which kills, when it delivers the next Ctrl-C.

    That is what System V's signal() does. Python has no call for it; if the C library has none, nothing changes.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.signal.restype = libc.sysv_signal.restype = ctypes.c_void_p
        libc.signal.argtypes = libc.sysv_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        pythons = libc.signal(signal.SIGINT, None)  # returns Python's own handler, which the next line installs again
        libc.sysv_signal(signal.SIGINT, pythons)
