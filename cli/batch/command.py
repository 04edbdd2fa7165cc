"""`phi3v batch`: many images, answered several at a time; one line of results each, resumable."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from phi3v.types import MAX_BATCH_SIZE

from ..answer_options import answer_format_options
from ..completion import complete_files
from ..exit_status import FAILED, SOME_FAILED
from ..notices import announce_model, quiet_option, say
from ..options import (
    background_option,
    device_option,
    generation_options,
    model_option,
    num_crops_option,
    size,
    system_option,
    threads_option,
)
from ..paged import PageSelection, pages_option
from .item import Item, Shard, gather_siblings, sample_items

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName
    from phi3v.models.folder import ModelDir
    from phi3v.options import GenerationOptions

    from .inputs import Inputs
    from .journal import Journal
    from .lines import Line

_path = click.Path(path_type=Path)


def _shard(text: str) -> Shard:
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise click.BadParameter(f"{text!r} is not a part; write K/N with K from 1 to N, as in 2/8")


@click.command(short_help="Answer questions about many images.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", shell_complete=complete_files)
@click.option("--question", "questions", multiple=True, metavar="TEXT", help="Asked of every image; may be repeated.")
@click.option("--questions", "question_file", type=_path, metavar="FILE", help="The same, one question per line.")
@click.option("--out", "target", required=True, metavar="FILE", help="Results: .jsonl, .csv or .parquet.")
@model_option
@quiet_option
@device_option
@threads_option
@num_crops_option
@background_option
@system_option
@generation_options
@answer_format_options
@click.option(
    "--batch-size", type=click.IntRange(1, MAX_BATCH_SIZE), default=8, show_default=True, help="Most answers at a time."
)
@click.option(
    "--max-memory",
    type=size,
    metavar="SIZE",
    help="Memory for answering, beside the model's own: 6GB. Default: half of what is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Threads that prepare images; with --ray, models.",
)
@click.option("--retry-failed", is_flag=True, help="Answer again what failed before.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Answer at most N more rows now.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Only N rows, drawn at random, always the same ones."
)
@click.option(
    "--shard", type=_shard, metavar="K/N", help="Only the Kth of N parts. Rows about the same images stay together."
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run on a Ray cluster: its address, auto, or local. --out is then a folder, and --workers are models.",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    metavar="N",
    help="With --ray. Default: 1 if there are any.",
)
@pages_option
@click.option("--encoding", metavar="NAME", help="Of tables that are not UTF-8: latin-1, cp1252, utf-16.")
@click.option("--dry-run", is_flag=True, help="Say how many rows, images and tokens it would be, and about how long.")
def batch(
    inputs: tuple[str, ...],
    questions: tuple[str, ...],
    question_file: Path | None,
    target: str,
    model: str | None,
    device: DeviceName,
    batch_size: int,
    max_memory: int | None,
    workers: int,
    retry_failed: bool,
    limit: int | None,
    sample: int | None,
    shard: Shard | None,
    dry_run: bool,
    ray: str | None,
    gpus_per_worker: float | None,
    pages: PageSelection | None,
    encoding: str | None,
    **options: Unpack[GenerationOptions],
) -> None:
    """Answer questions about many images, and write one line for each.

    INPUT is an image, a folder (its images and those in its subfolders; names that start with a dot are skipped), a
    pattern in quotes, a URL, or a .jsonl, .csv, .tsv or .parquet table with the columns image or images, question and
    id. Paths in a table are relative to the table. A row without a question is asked --question.

    Every answer is written as soon as it is there. After any interruption the same command continues, and answers only
    what is missing; so it does when questions or images are added. Failures are lines too, and count as answered
    unless --retry-failed is given. With --schema and the like, a .csv or .parquet file has a typed column for each
    field, and a .jsonl file an object as its answer. The input table's other columns travel along.

    A .jsonl file has its lines in the order in which they were answered. A .csv or .parquet file is written at the
    end, in input order, built from FILE.journal.jsonl beside it. Exits with 3 if some rows failed, with 1 if all did.

    \b
    phi3v batch photos/ --question "What is this?" --out answers.jsonl
    phi3v batch 'scans/*.png' pages.csv --questions questions.txt --out answers.csv
    phi3v batch covers/ --question "Title and author?" --schema 'title, author' --out books.parquet
    """
    from phi3v.options import make_request

    from .inputs import InputReader, read_questions
    from .journal import Journal, locked
    from .lines import LineMaker
    from .run import Limits, answer_items, find_unanswered, hash_run, open_model
    from .table import check_replaceable, journal_of, write_table

    asked = list(dict.fromkeys([*questions, *(read_questions(question_file) if question_file else ())]))
    make_request("", (), **options)  # refuses options before anything is opened
    reader = InputReader(asked, pages=pages, encoding=encoding)
    if ray is not None:
        if retry_failed or limit is not None or dry_run:
            raise click.UsageError("--retry-failed, --limit and --dry-run do not go with --ray; leave them out")
        from .ray_job import Cluster, Job, run_on_ray

        cluster = Cluster(ray, workers, gpus_per_worker, batch_size, max_memory)
        job = Job(reader, inputs, asked, partial(_choose, shard=shard, sample=sample), target)
        _exit_by(*run_on_ray(job, model, device, cluster, **options))
        return
    if gpus_per_worker is not None:
        raise click.UsageError("--gpus-per-worker is for --ray; leave it out, or give --ray ADDRESS")
    if "://" in target:
        raise click.UsageError(f"--out {target}: only --ray writes to a URL; give a file")
    out = Path(target)
    items = _choose(reader.read(inputs), shard=shard, sample=sample)
    maker = LineMaker(options.get("answer_format"), items)
    journal_path, folder = journal_of(out), open_model(model, device)
    check_replaceable(out, journal_path)
    run = hash_run(folder, **options)
    if dry_run and not journal_path.exists():
        _tell_size(items[:limit], folder, (), **options)
        return
    with locked(out), closing(Journal(journal_path, run)) as journal:
        unanswered = find_unanswered(items, journal, retry_failed)
        if dry_run:
            _tell_size(unanswered[:limit], folder, journal.lines(), **options)
            return
        announce_model(folder, named=model is not None)
        before = len(items) - len(unanswered)
        if before:
            say(f"{before} of {len(items)} are already in {out}")
        try:
            if now := unanswered[:limit]:
                limits = Limits(batch_size, max_memory, workers)
                progress = answer_items(journal, maker, now, folder, device, limits, **options)
                say(progress.summary(before))
        except KeyboardInterrupt:
            again = shlex.join(["phi3v", *sys.argv[1:]])
            say(f"{len(journal.done)} answers are safe in {journal_path}; to go on: {again}")
            raise
        finally:
            if journal_path != out:
                write_table(out, journal, maker, items)
        _report(items, journal, out)


def _choose(found: Inputs, *, shard: Shard | None, sample: int | None) -> list[Item]:
    """Say what was not read, and return the rows that are wanted."""
    for note in found.notes:
        say(note)
    items = [item for item in found.items if shard is None or shard.holds(item)]
    return items if sample is None else sample_items(items, sample)


def _tell_size(
    items: Sequence[Item], folder: ModelDir, answered: Iterable[Line], **options: Unpack[GenerationOptions]
) -> None:
    from .estimate import describe, measure

    num_crops = options.get("num_crops") or folder.num_crops
    click.echo(describe(measure(gather_siblings(items), folder, num_crops, options.get("system", "")), answered))


def _report(items: Sequence[Item], journal: Journal, out: Path) -> None:
    """Say what is left to do, and exit with the status that stands for it."""
    done = [journal.done[item.id] for item in items if item.id in journal.done]
    failed = sum(one.failed for one in done)
    if left := len(items) - len(done):
        say(f"{left} of {len(items)} are not answered yet; the same command without --limit answers them")
    if failed:
        say(f"{failed} of {len(items)} failed; {out} says why, and --retry-failed tries them again")
    _exit_by(len(done), failed)


def _exit_by(rows: int, failed: int) -> None:
    if failed:
        click.get_current_context().exit(FAILED if failed == rows else SOME_FAILED)
