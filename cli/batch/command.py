"""`phi3v batch`: many images, answered several at a time; one line of results each, resumable."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from phi3v.types import MAX_BATCH_SIZE

from ..answer_options import answer_format_options
from ..completion import complete_files
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

if TYPE_CHECKING:
    from phi3v.machine.device_table import DeviceName
    from phi3v.options import GenerationOptions

_path = click.Path(path_type=Path)


@click.command(short_help="Answer questions about many images.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", shell_complete=complete_files)
@click.option("--question", "questions", multiple=True, metavar="TEXT", help="Asked of every image; may be repeated.")
@click.option("--questions", "question_file", type=_path, metavar="FILE", help="The same, one question per line.")
@click.option("--out", type=_path, required=True, metavar="FILE", help="Results: .jsonl, .csv or .parquet.")
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
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Threads that prepare images."
)
@click.option("--retry-failed", is_flag=True, help="Answer again what failed before.")
def batch(
    inputs: tuple[str, ...],
    questions: tuple[str, ...],
    question_file: Path | None,
    out: Path,
    model: str | None,
    device: DeviceName,
    batch_size: int,
    max_memory: int | None,
    workers: int,
    retry_failed: bool,
    **options: Unpack[GenerationOptions],
) -> None:
    """Answer questions about many images, and write one line for each.

    INPUT is an image, a folder (its images and those in its subfolders; names that start with a dot are skipped), a
    pattern in quotes, a URL, or a .jsonl or .csv table with the columns image or images, question and id. Paths in a
    table are relative to the table. A row without a question is asked --question.

    Every answer is written as soon as it is there. After any interruption the same command continues, and answers only
    what is missing (an image is known by its path). Failures are lines too, and count as answered unless --retry-failed
    is given. A .jsonl file has its lines in the order in which they were answered. A .csv or .parquet file is written
    at the end, in input order, built from FILE.journal.jsonl beside it. Exits with 1 if a line is a failure.

    \b
    phi3v batch photos/ --question "What is this?" --out answers.jsonl
    phi3v batch 'scans/*.png' pages.csv --questions questions.txt --out answers.csv
    """
    from phi3v.options import make_request

    from .inputs import read_items, read_questions
    from .journal import Journal, locked
    from .run import Limits, answer_items, find_unanswered, hash_run, open_model
    from .table import check_replaceable, journal_of, write_table

    asked = [*questions, *(read_questions(question_file) if question_file else ())]
    items = read_items(inputs, asked)
    requests = {item.id: make_request(item.question, item.images, **options) for item in items}
    journal_path, folder = journal_of(out), open_model(model, device)
    check_replaceable(out, journal_path)
    with locked(out), closing(Journal(journal_path, hash_run(folder, asked, **options))) as journal:
        unanswered = find_unanswered(items, journal, retry_failed)
        announce_model(folder, named=model is not None)
        if len(unanswered) < len(items):
            say(f"{len(items) - len(unanswered)} of {len(items)} are already in {out}")
        try:
            if unanswered:
                limits = Limits(batch_size, max_memory, workers)
                answer_items(journal, {item: requests[item.id] for item in unanswered}, folder, device, limits)
        finally:
            if journal_path != out:
                write_table(out, journal.lines(), {item.id: at for at, item in enumerate(items)})
        failed = sum(journal.done[item.id].failed for item in items)
    if failed:
        say(f"{failed} of {len(items)} failed; --retry-failed tries them again")
        click.get_current_context().exit(1)
