"""What quantisation costs in right answers: `python -m phi3v.bench.studies.nano_settings STATE OUT`.

Builds nano in every setting of `export_settings` and every precision, and asks each about the same pictures as the fp32
PyTorch reference. Random weights can only tell which setting is nearer; a trained model tells what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from ...backend import Backend
from ...engine import Engine, load
from ...export.build import export_model
from ...export.nano.card import BARS
from ...export.nano.checkpoint import read_nano, write_checkpoint
from ...export.nano.evaluate import Score, evaluate
from .export_settings import build as build_settings

REFERENCE = "PyTorch fp32"
PRECISIONS = ("fp32", "fp16")


def build(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """A model folder a setting, by name."""
    made = {}
    for precision in PRECISIONS:
        made[precision] = folder / precision
        if not made[precision].exists():
            export_model(checkpoint, made[precision], precision=precision)
    return made | build_settings(checkpoint, folder)


@contextmanager
def engine_of(name: str, folder: Path) -> Iterator[Engine]:
    """A model folder, or the reference on a checkpoint folder, behind the same engine."""
    if name != REFERENCE:
        with load(folder) as engine:
            yield engine
        return
    from ..reference import ReferenceBackend

    with Engine(cast(Backend, ReferenceBackend(folder))) as engine:
        yield engine


def table(scores: dict[str, Sequence[Score]], folders: dict[str, Path]) -> str:
    """Markdown: bytes, answers right and characters right, a line a setting."""
    jobs = [score.job for score in next(iter(scores.values()))]
    lines = [f"| setting | MB | {' | '.join(f'{job}: right | characters' for job in jobs)} |"]
    lines.append("|---" * (2 + 2 * len(jobs)) + "|")
    for name, found in scores.items():
        size = "" if name == REFERENCE else f"{sum(f.stat().st_size for f in folders[name].iterdir()) / 1e6:.1f}"
        cells = [f"{s.right} of {s.asked} | {100 * s.read / max(1, s.characters):.2f} %" for s in found]
        lines.append(f"| {name} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.argument("state", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=500, show_default=True, help="Pictures a job.")
@click.option("--job", "jobs", multiple=True, default=("cover",), show_default=True, type=click.Choice(list(BARS)))
@click.option("--only", multiple=True, metavar="SETTING", help="Just these settings.")
@click.option("--num-crops", type=click.IntRange(1, 16), help="Default: the folder's own, 1.")
def main(
    state: Path, out: Path, count: int, jobs: tuple[str, ...], only: tuple[str, ...], num_crops: int | None
) -> None:
    """Build nano from STATE in every setting below OUT, and print what each answers right."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise click.UsageError(f"{out} is not empty, and may hold models of another state; give a new folder")
    checkpoint = write_checkpoint(read_nano(state), out / "nano")
    folders = {REFERENCE: checkpoint} | build(checkpoint, out)
    scores: dict[str, Sequence[Score]] = {}
    for name in only or folders:
        with engine_of(name, folders[name]) as engine:
            scores[name] = [evaluate(engine, job, count, num_crops=num_crops)[0] for job in jobs]
        click.echo(f"{name}: {'; '.join(map(str, scores[name]))}", err=True)
    click.echo(table(scores, folders))


if __name__ == "__main__":
    main()
