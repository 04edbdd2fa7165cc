"""Progress bars on stderr: what is being done, how fast, and how long it will take."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
