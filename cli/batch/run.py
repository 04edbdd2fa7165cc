"""One run of `phi3v batch`: which questions are still to be answered, and answering them into the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Unpack

from ..notices import say
from ..progress import answers_bar

if TYPE_CHECKING:
    from phi3v import GenerationRequest
    from phi3v.batch import Outcome
    from phi3v.machine.device_table import DeviceName
    from phi3v.models.folder import ModelDir
    from phi3v.options import GenerationOptions

    from .inputs import Item
    from .journal import Journal


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at a time: answers, bytes (None: the engine decides), threads that prepare images."""

    batch_size: int
    max_memory: int | None
    workers: int

    def split(self, image_bytes: int) -> tuple[int, int | None]:
        """Return how many prepared images may wait in this process, and the bytes that are left to the engine."""
        if self.max_memory is None:
            return self.batch_size, None
        ahead = max(1, min(self.batch_size, self.max_memory // 4 // image_bytes))
        return ahead, max(1, self.max_memory - ahead * image_bytes)


def open_model(model: str | None, device: DeviceName) -> ModelDir:
    """Find the model's folder and read what it says. Raises Phi3VError."""
    from phi3v.models.folder import ModelDir
    from phi3v.models.local import resolve_model

    return ModelDir.open(resolve_model(model, device))


def hash_run(folder: ModelDir, asked: list[str], **options: Unpack[GenerationOptions]) -> str:
    """Hash what decides the answers: the model, the common questions, every option of generation."""
    import hashlib
    import json

    from phi3v.models.fingerprint import hash_contents

    model = hash_contents(folder.path)
    settings = {"model": model, "questions": asked, **options}
    settings["num_crops"] = options.get("num_crops") or folder.num_crops
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def find_unanswered(items: list[Item], journal: Journal, retry_failed: bool) -> list[Item]:
    """Return what the journal does not answer yet. With `retry_failed` the failures are taken out of it first.

    Raises OptionError if the journal answers something else under the id of an item.
    """
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


def answer_items(
    journal: Journal, requests: Mapping[Item, GenerationRequest], folder: ModelDir, device: DeviceName, limits: Limits
) -> None:
    """Write a line to the journal for every request, as soon as its outcome is there."""
    from phi3v.hd import CROP_BYTES, most_crops
    from phi3v.process.model_process import ModelProcess
    from phi3v.process.process_engine import ProcessAnswerer

    crops = max(most_crops(request.num_crops or folder.num_crops) for request in requests.values())
    ahead, memory = limits.split((crops + 1) * CROP_BYTES)
    items = list(requests)
    began = time.perf_counter()
    process = ModelProcess(folder, device, batch_size=limits.batch_size, max_memory=memory)
    with ProcessAnswerer(process.wait_until_loaded()) as engine:
        load_s = time.perf_counter() - began
        with answers_bar(len(items)) as advance:
            outcomes = engine.answer(
                requests.values(),
                workers=limits.workers,
                ahead=ahead,
                batch_size=limits.batch_size,
                max_memory=memory,
            )
            for number, outcome in outcomes:
                line = _make_line(items[number], outcome)
                for note in line["notes"]:
                    say(note)
                journal.append(line)
                advance(line["usage"]["completion_tokens"] if line["usage"] else 0, line["error"] is not None)
    seconds = time.perf_counter() - began
    if process.restarts:
        say(f"the process that holds the model ended {process.restarts} times; what it was answering was asked again")
    say(f"{len(items)} answered in {seconds:.1f} s, {load_s:.1f} s of it loading")


def _make_line(item: Item, outcome: Outcome) -> dict[str, Any]:
    line = {"id": item.id, "images": item.images, "question": item.question}
    if isinstance(outcome, Exception):
        return (
            line | dict.fromkeys(("answer", "finish_reason", "usage", "timings")) | {"notes": [], "error": str(outcome)}
        )
    return line | {
        "answer": outcome.text,
        "finish_reason": outcome.finish_reason,
        "usage": asdict(outcome.usage),
        "timings": asdict(outcome.timings) | {"ttft_s": outcome.timings.ttft_s},
        "notes": list(outcome.notes),
        "error": None,
    }
