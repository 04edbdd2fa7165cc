"""How far a job is: a bar on a terminal, a line now and then elsewhere, and a summary at its end."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..notices import is_quiet, say

LINE_EVERY_S = 10.0
"""Seconds between two lines where stderr is not a terminal."""

_WINDOW_S = 60.0
_ENOUGH = 3
"""Answers before the rate is worth telling."""


class Rate:
    """Answers a second over the last minute, so that neither the first answer nor an old pause counts for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._times: deque[float] = deque()
        self._count = 0

    def add(self) -> None:
        """Count an answer."""
        self._count += 1
        self._times.append(self._clock())

    def per_s(self) -> float | None:
        """Answers a second; None while there are too few."""
        now = self._clock()
        while self._times and self._times[0] < now - _WINDOW_S:
            self._times.popleft()
        seconds = min(now - self._began, _WINDOW_S)
        return len(self._times) / seconds if self._count >= _ENOUGH and self._times and seconds > 0 else None


@dataclass(slots=True)
class Progress:
    """What has become of a job's rows so far."""

    total: int
    rate: Rate = field(default_factory=Rate)
    answered: int = 0
    tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """Rows that were answered or failed."""
        return self.answered + self.failures.total()

    def add(self, tokens: int, error_type: str | None) -> None:
        """Count a row: the tokens of its answer, or the name of its error."""
        self.rate.add()
        self.tokens += tokens
        if error_type is None:
            self.answered += 1
        else:
            self.failures[error_type] += 1

    def speed(self) -> str:
        """Failures, rate and the time that is left."""
        parts = [f"{self.failures.total()} failed"] if self.failures else []
        if per_s := self.rate.per_s():
            parts += [f"{per_s:.1f} rows/s" if per_s >= 1 else f"{1 / per_s:.1f} s a row"]
            parts += [f"{format_time((self.total - self.done) / per_s)} left"]
        return ", ".join(parts)

    def summary(self, before: int) -> str:
        """How the job ended; `before`: rows that were done before it began."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
        failed = f"{self.failures.total()} failed ({kinds})" if self.failures else "0 failed"
        return (
            f"{self.answered} answered, {failed}, {before} done before; {format_time(seconds)}, "
            f"{self.tokens / seconds:.1f} tokens/s"
        )


def format_time(seconds: float) -> str:
    """Seconds as a person says them: 8.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


@contextmanager
def show_progress(total: int) -> Iterator[Progress]:
    """Yield the progress of a job, which is shown on stderr while the block runs."""
    from rich.console import Console

    console, progress, over = Console(stderr=True), Progress(total), threading.Event()
    if is_quiet():
        yield progress
        return
    show = _move_bar if console.is_terminal else _print_lines
    thread = threading.Thread(target=show, args=(progress, over), name="phi3v-progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        over.set()
        thread.join()


def _print_lines(progress: Progress, over: threading.Event) -> None:
    while not over.wait(LINE_EVERY_S):
        say(f"{progress.done} of {progress.total}" + (f", {speed}" if (speed := progress.speed()) else ""))


def _move_bar(progress: Progress, over: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task, ended = bar.add_task("", total=progress.total), False
        while not ended:
            ended = over.wait(0.2)
            bar.update(task, completed=progress.done, description=progress.speed())
