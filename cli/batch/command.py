"""`phi3v batch`: many pictures, answered several at a time; one line of results each, resumable."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phi3v.types import MAX_BATCH_SIZE

from ..answer_options import answer_format_options
from ..notices import model_notices
from ..options import device_option, generation_options, model_option, num_crops_option, size
from ..progress import answers_bar

if TYPE_CHECKING:
    from phi3v import GenerationRequest
    from phi3v.answer_format import AnswerFormat
    from phi3v.batch import Outcome
    from phi3v.models.folder import ModelDir
    from phi3v.types import NumCrops

    from .inputs import Item
    from .journal import Journal

_path = click.Path(path_type=Path)


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--question", "questions", multiple=True, metavar="TEXT", help="Asked of every picture; may be repeated.")
@click.option("--questions", "question_file", type=_path, metavar="FILE", help="The same, one question a line.")
@click.option("--out", type=_path, required=True, metavar="FILE", help="Results: .jsonl, .csv or .parquet.")
@model_option
@device_option
@num_crops_option
@generation_options
@answer_format_options
@click.option(
    "--batch-size", type=click.IntRange(1, MAX_BATCH_SIZE), default=8, show_default=True, help="Most answers at a time."
)
@click.option(
    "--max-memory",
    type=size,
    metavar="SIZE",
    help="For answering, beside the model: 6GB. Default: half of what is free.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Threads reading pictures.")
@click.option("--retry-failed", is_flag=True, help="Answer again what failed before.")
def batch(
    inputs: tuple[str, ...],
    questions: tuple[str, ...],
    question_file: Path | None,
    out: Path,
    model: str | None,
    device: str,
    batch_size: int,
    max_memory: int | None,
    workers: int,
    retry_failed: bool,
    **options: Any,
) -> None:
    """Answer questions about many pictures, and write one line for each.

    INPUT is a picture, a folder (its pictures and those in its subfolders; names that start with a dot are skipped), a
    pattern in quotes, a URL, or a .jsonl or .csv table with the columns image or images, question and id. Paths in a
    table are relative to the table. A row without a question is asked --question.

    Every answer is written as soon as it is there. The same command goes on after any interruption, and answers only
    what is missing (a picture is known by its path); failures are lines too, counted as answered unless --retry-failed
    is given. Lines come in the order of finishing; a .csv or .parquet file is written at the end, in the order of the
    inputs, from the journal beside it.
    Exits with 1 when a line is a failure.

    \b
    phi3v batch photos/ --question "What is this?" --out answers.jsonl
    phi3v batch 'scans/*.png' pages.csv --questions questions.txt --out answers.csv
    """
    from .inputs import read_items, read_questions
    from .journal import Journal, locked
    from .table import journal_of, write_table

    asked = [*questions, *(read_questions(question_file) if question_file else ())]
    items = read_items(inputs, asked)
    requests = {item.id: _request(item, **options) for item in items}
    journal_path, folder = journal_of(out), _open_model(model, device)
    if journal_path != out and out.exists() and not journal_path.exists():
        raise click.UsageError(
            f"{out} is there and {journal_path.name}, which it would be made from, is not; give --out another file, or "
            "delete this one"
        )
    with locked(out), closing(Journal(journal_path, _run(folder, asked, **options))) as journal:
        todo = _to_do(items, journal, retry_failed)
        _say_before(folder, model, out, len(items), len(todo))
        try:
            if todo:
                limits = Limits(batch_size, max_memory, workers)
                _answer(journal, todo, [requests[item.id] for item in todo], folder, device, limits)
        finally:
            if journal_path != out:
                write_table(out, journal.lines(), {item.id: at for at, item in enumerate(items)})
        failed = sum(journal.done[item.id].failed for item in items)
    if failed:
        click.echo(f"phi3v: {failed} of {len(items)} failed; --retry-failed tries them again", err=True)
        click.get_current_context().exit(1)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at a time: answers, bytes (None: the engine's choice), threads that read pictures."""

    batch_size: int
    max_memory: int | None
    workers: int

    def split(self, picture_bytes: int) -> tuple[int, int | None]:
        """How many prepared requests may wait here, and the bytes that leaves to the engine."""
        if self.max_memory is None:
            return self.batch_size, None
        ahead = max(1, min(self.batch_size, self.max_memory // 4 // picture_bytes))
        return ahead, max(1, self.max_memory - ahead * picture_bytes)


def _request(
    item: Item,
    max_new_tokens: int,
    num_crops: NumCrops | None,
    stop: tuple[str, ...],
    answer_format: AnswerFormat | None,
    **how: Any,
) -> GenerationRequest:
    from phi3v import GenerationRequest, SamplingParams

    sampling = SamplingParams(**how)
    return GenerationRequest(item.question, item.images, max_new_tokens, num_crops, stop, sampling, answer_format)


def _open_model(model: str | None, device: str) -> ModelDir:
    from phi3v.models.folder import ModelDir
    from phi3v.models.local import resolve_model

    return ModelDir.open(resolve_model(model, device))


def _run(folder: ModelDir, asked: list[str], num_crops: int | None, **options: Any) -> str:
    """A digest of what decides the answers: the model, the common questions, every option of generation."""
    import hashlib
    import json

    from phi3v.bench.record import describe_model

    model = describe_model(folder.path)["hash"]
    settings = {"model": model, "questions": asked, "num_crops": num_crops or folder.num_crops, **options}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def _to_do(items: list[Item], journal: Journal, retry_failed: bool) -> list[Item]:
    """What the journal does not answer yet. Raises OptionError where it answers something else under the same id."""
    from phi3v.errors import OptionError

    for item in items:
        before = journal.done.get(item.id)
        if before and (before.question, before.images) != (item.question, item.images):
            raise OptionError(
                f"{journal.path} answers {before.question!r} about {list(before.images)} under the id {item.id!r}, and "
                f"now it is {item.question!r} about {list(item.images)}; give --out another file, or delete this one"
            )
    if retry_failed and (again := {i.id for i in items if i.id in journal.done and journal.done[i.id].failed}):
        journal.forget(again)
    return [item for item in items if item.id not in journal.done]


def _say_before(folder: ModelDir, model: str | None, out: Path, count: int, left: int) -> None:
    for line in model_notices(folder, named=model is not None):
        click.echo(line, err=True)
    if left < count:
        click.echo(f"phi3v: {count - left} of {count} are in {out} already", err=True)


def _answer(
    journal: Journal,
    todo: list[Item],
    requests: list[GenerationRequest],
    folder: ModelDir,
    device: str,
    limits: Limits,
) -> None:
    """Write a line for every request, as soon as its outcome is there."""
    from phi3v.hd import CROP_BYTES, most_crops
    from phi3v.process.engine_process import EngineProcess

    crops = max(most_crops(request.num_crops or folder.num_crops) for request in requests)
    ahead, memory = limits.split((crops + 1) * CROP_BYTES)
    began = time.perf_counter()
    with EngineProcess(folder, device, batch_size=limits.batch_size, max_memory=memory) as engine:  # type: ignore[arg-type]
        load_s = time.perf_counter() - began
        with answers_bar(len(todo)) as advance:
            for number, outcome in engine.answer(requests, workers=limits.workers, ahead=ahead):
                line = _line(todo[number], outcome)
                journal.append(line)
                advance(line["usage"]["completion_tokens"] if line["usage"] else 0, line["error"] is not None)
    seconds = time.perf_counter() - began
    click.echo(f"phi3v: {len(todo)} answered in {seconds:.1f} s, {load_s:.1f} s of it loading", err=True)


def _line(item: Item, outcome: Outcome) -> dict[str, Any]:
    line = {"id": item.id, "images": item.images, "question": item.question}
    if isinstance(outcome, Exception):
        return line | dict.fromkeys(("answer", "finish_reason", "usage", "timings")) | {"error": str(outcome)}
    return line | {
        "answer": outcome.text,
        "finish_reason": outcome.finish_reason,
        "usage": asdict(outcome.usage),
        "timings": asdict(outcome.timings) | {"ttft_s": outcome.timings.ttft_s},
        "error": None,
    }
