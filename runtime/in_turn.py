"""Several answers one after the other, each by itself, behind the same calls as a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .backend import Generation


class InTurn:
    """Rows of a batch that run alone: the next one starts when the one before has left.

    `rows`: each row's number, and what starts its generation.
    """

    def __init__(self, rows: Iterable[tuple[int, Callable[[], Generation]]]) -> None:
        self._waiting = dict(rows)
        self._running: tuple[int, Generation] | None = None

    def step(self) -> dict[int, int]:
        """The next token id of the row whose turn it is."""
        if self._running is None:
            row = next(iter(self._waiting))
            self._running = row, self._waiting.pop(row)()
        row, generation = self._running
        return {row: generation.step()}

    def leave(self, row: int) -> None:
        """This row is finished."""
        self._waiting.pop(row, None)
        if self._running is not None and self._running[0] == row:
            self._running[1].close()
            self._running = None

    def close(self) -> None:
        """Free the KV cache; nothing starts any more."""
        self._waiting.clear()
        if self._running is not None:
            self.leave(self._running[0])
