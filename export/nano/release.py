"""Ship nano: `python -m phi3v.export.nano.release STATE` builds the package's model folder, scores it, describes it.

The tests then hold the card and the examples to what was measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import click

import phi3v

from ...errors import ModelFolderError
from ...models.folder import BUILTIN
from ...models.manifest import Manifest, has_manifest
from ..precision import PRECISIONS
from .build import build
from .card import BARS, BRIEF, about, card
from .checkpoint import write_aids
from .evaluate import WORDS, Score, evaluate, rows, write_scores

CARD, SCORES = "README.md", "scores.json"
PRECISION = "fp16"
"""What is shipped: half the bytes of fp32, and as many answers right (export/nano/README.md has the comparison)."""


def release(
    state: Path, folder: Path = BUILTIN, *, precision: str = PRECISION, count: int = 500, workers: int = 2
) -> list[Score]:
    """Build, score and describe the built-in model, beside the one that is there, and only then replace that.

    `count` pictures are asked about for each job that has a bar, and for covers of held-out words; a fifth elsewhere.
    Raises ModelFolderError where something else is there.
    """
    if folder.exists() and not has_manifest(folder):
        raise ModelFolderError(f"{folder} is not a model folder and is not replaced; give another name")
    folder.parent.mkdir(exist_ok=True)
    new = folder.with_name(f"{folder.name}.new")
    build(state, new, precision, overwrite=True)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        tasks = [pool.submit(_score, new, job, words, _pictures(job, words, count)) for job, words in rows()]
        scores = []
        for task in tasks:
            scores.append(task.result())
            print(scores[-1], flush=True)
    describe(new, scores)
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
    return scores


def _pictures(job: str, words: str, count: int) -> int:
    return count if job == "cover" or (job in BARS and words == WORDS[0]) else -(-count // 5)


def _score(folder: Path, job: str, words: str, count: int) -> Score:
    with phi3v.load(folder) as engine:
        return evaluate(engine, job, count, words)[0]


def describe(folder: Path, scores: Sequence[Score]) -> None:
    """Write the scores, and what follows from them: the card and the line the model is introduced with."""
    write_scores(scores, folder / SCORES)
    manifest = replace(Manifest.read(folder), about=about(scores), brief=BRIEF, needs_image=True, knows_formats=False)
    manifest.write(folder)
    (folder / CARD).write_text(card(scores, manifest.nbytes / 1e6), encoding="utf-8")


@click.command()
@click.argument("state", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=BUILTIN, help="Default: the package's own."
)
@click.option("--precision", type=click.Choice(PRECISIONS), default=PRECISION, show_default=True)
@click.option(
    "--count", type=click.IntRange(min=1), default=500, show_default=True, help="Pictures a job that has a bar."
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes that score.")
@click.option("--aids", type=click.Path(dir_okay=False, path_type=Path), help="Keep STATE's training aids here first.")
def main(state: Path, folder: Path, precision: str, count: int, workers: int, aids: Path | None) -> None:
    """Build, score and describe the model folder of STATE, what training saved (.pt) or another folder."""
    if aids is not None:
        write_aids(state, aids)
    release(state, folder, precision=precision, count=count, workers=workers)


if __name__ == "__main__":
    main()
