"""Progress bars on stderr: what is being done, how fast, and how long it will take."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phi3v.export.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a function of (stage, done bytes, total bytes) that moves a bar. The bar appears with the first call."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total, visible=True)


@contextmanager
def answers_bar(total: int) -> Iterator[Callable[[int, bool], None]]:
    """Yield a function of (an answer's tokens, whether it failed) that moves a bar over `total` answers."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    rate, times = TextColumn("{task.description}"), (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Bar(MofNCompleteColumn(), BarColumn(), rate, *times, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        tokens = failures = 0

        def advance(new: int, failed: bool) -> None:
            nonlocal tokens, failures
            tokens, failures = tokens + new, failures + failed
            per_s = tokens / (bar.tasks[0].elapsed or 1.0)
            rate = f"{per_s:.1f} tokens/s" + (f", {failures} failed" if failures else "")
            bar.update(task, advance=1, description=rate)

        yield advance
