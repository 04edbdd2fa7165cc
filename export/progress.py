"""How an export or a download tells its caller how far it is. The library itself never prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called after every piece of work: the stage under way, and the bytes done so far, of how many in all."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`stage` is a graph that is built or a file that is fetched; `done` and `total` count over all stages."""


class Meter:
    """Adds up bytes and hands them to a caller's Progress."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.stage, self._progress = total, 0, "", progress

    def enter(self, stage: str) -> None:
        """Name the stage that begins."""
        self.stage = stage
        self.add(0)

    def add(self, nbytes: int) -> None:
        """Count bytes that are done; a negative number takes back what was worth nothing."""
        self.done = min(self.done + nbytes, self.total)
        if self._progress is not None:
            self._progress(self.stage, self.done, self.total)
