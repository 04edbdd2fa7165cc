"""What quantisation costs in right answers: `phi3v bench study nano-settings STATE OUT`.

Builds nano in every setting of `export_settings` and in every precision, and asks each about the same images as the
fp32 PyTorch reference. Random weights only tell which setting is nearer to fp32; a trained model tells what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from ...backend import Backend
from ...engine import Engine, load
from ...errors import OptionError
from ...export.build import export_model
from ...export.nano.checkpoint import read_nano, write_checkpoint
from ...export.nano.evaluate import Score, evaluate
from ..program import run_command
from .export_settings import SETTINGS
from .export_settings import build as build_settings

REFERENCE = "PyTorch fp32"
PRECISIONS = ("fp32", "fp16")


def measure(
    state: Path,
    out: Path,
    *,
    count: int = 500,
    jobs: Sequence[str] = ("cover",),
    only: Sequence[str] = (),
    num_crops: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Build nano from STATE in every setting below OUT, ask each about `count` images per job, return the table.

    Raises OptionError when OUT holds anything, or for a setting in `only` that is not known.
    """
    known = (REFERENCE, *PRECISIONS, *SETTINGS)
    if unknown := set(only) - set(known):
        raise OptionError(f"not a setting: {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OptionError(f"{out} is not empty, and may hold models of another state; give a new folder")
    checkpoint = write_checkpoint(read_nano(state), out / "nano")
    folders = {REFERENCE: checkpoint} | build(checkpoint, out)
    scores: dict[str, Sequence[Score]] = {}
    for name in only or folders:
        with open_engine(name, folders[name]) as engine:
            scores[name] = [evaluate(engine, job, count, num_crops=num_crops)[0] for job in jobs]
        say(f"{name}: {'; '.join(map(str, scores[name]))}")
    return format_table(scores, folders)


def build(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Build one model folder per setting, and return them by name."""
    made = {}
    for precision in PRECISIONS:
        made[precision] = folder / precision
        if not made[precision].exists():
            export_model(checkpoint, made[precision], precision=precision)
    return made | build_settings(checkpoint, folder)


@contextmanager
def open_engine(name: str, folder: Path) -> Iterator[Engine]:
    """Open a model folder, or the reference on a checkpoint folder, behind the same engine."""
    if name != REFERENCE:
        with load(folder) as engine:
            yield engine
        return
    from ..reference import ReferenceBackend

    with Engine(cast(Backend, ReferenceBackend(folder))) as engine:
        yield engine


def format_table(scores: dict[str, Sequence[Score]], folders: dict[str, Path]) -> str:
    """Write bytes, right answers and right characters as Markdown, one line per setting."""
    jobs = [score.job for score in next(iter(scores.values()))]
    lines = [f"| setting | MB | {' | '.join(f'{job}: right | characters' for job in jobs)} |"]
    lines.append("|---" * (2 + 2 * len(jobs)) + "|")
    for name, found in scores.items():
        size = "" if name == REFERENCE else f"{sum(f.stat().st_size for f in folders[name].iterdir()) / 1e6:.1f}"
        cells = [f"{s.right} of {s.asked} | {100 * s.read / max(1, s.characters):.2f} %" for s in found]
        lines.append(f"| {name} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command("study", "nano-settings")
