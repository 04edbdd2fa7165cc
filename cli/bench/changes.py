"""The table of what changed between two records."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi3v.bench.compare import Change


def print_changes(changes: list[Change]) -> None:
    """Print one line per change, verdicts in colour."""
    from rich.console import Console
    from rich.table import Table

    table = Table("subject", "case", "metric", "old", "new", "factor", "counts from", "verdict", box=None)
    colour = {"worse": "red", "better": "green", "too noisy": "yellow", "too few": "yellow"}
    for change in changes:
        mark = f"[{colour[change.verdict]}]{change.verdict}[/]" if change.verdict in colour else change.verdict
        numbers = (f"{change.old:.4g}", f"{change.new:.4g}", f"{change.factor:.3f}", f"±{change.band:.0%}")
        table.add_row(change.subject, change.case, change.metric, *numbers, mark)
    Console(width=140).print(table)
