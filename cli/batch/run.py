"""One run of `phi3v batch`: which questions are still to be answered, and answering them into the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from ..notices import say
from .item import gather_siblings
from .progress import Progress, show_progress

if TYPE_CHECKING:
    from phi3v.images.cropped import NumCrops
    from phi3v.machine.device_table import DeviceName
    from phi3v.models.folder import ModelDir
    from phi3v.options import GenerationOptions

    from .item import Item
    from .journal import Journal
    from .lines import LineMaker


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


def hash_run(folder: ModelDir, **options: Unpack[GenerationOptions]) -> str:
    """Hash what decides every answer of a job: the model and every option of generation."""
    import hashlib
    import json

    from phi3v.models.fingerprint import hash_contents

    settings = {"model": hash_contents(folder.path), **options}
    settings["num_crops"] = options.get("num_crops") or folder.num_crops
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def find_unanswered(items: Sequence[Item], journal: Journal, retry_failed: bool) -> list[Item]:
    """Return what the journal does not answer yet. With `retry_failed` its failures count as not answered.

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
    done = {name for name, before in journal.done.items() if not (retry_failed and before.failed)}
    return [item for item in items if item.id not in done]


def answer_items(
    journal: Journal,
    maker: LineMaker,
    items: Sequence[Item],
    folder: ModelDir,
    device: DeviceName,
    limits: Limits,
    **options: Unpack[GenerationOptions],
) -> Progress:
    """Write a line to the journal for every item, as soon as its outcome is there. Failures of before are replaced."""
    from phi3v.hd import CROP_BYTES, most_crops
    from phi3v.options import make_request
    from phi3v.process.model_process import ModelProcess
    from phi3v.process.process_engine import ProcessAnswerer

    num_crops: NumCrops = options.get("num_crops") or folder.num_crops
    ahead, memory = limits.split((most_crops(num_crops) + 1) * CROP_BYTES)
    items = gather_siblings(items)
    process = ModelProcess(folder, device, batch_size=limits.batch_size, max_memory=memory)
    with ProcessAnswerer(process.wait_until_loaded()) as engine, show_progress(len(items)) as progress:
        journal.forget({item.id for item in items})
        outcomes = engine.answer(
            (make_request(item.question, item.images, **options) for item in items),
            workers=limits.workers,
            ahead=ahead,
            batch_size=limits.batch_size,
            max_memory=memory,
        )
        for number, outcome in outcomes:
            line = maker.make(items[number], outcome)
            for note in line["notes"]:
                say(note)
            journal.append(line)
            progress.add(line["usage"]["completion_tokens"] if line["usage"] else 0, line["error_type"])
    if process.restarts:
        say(f"the process that holds the model ended {process.restarts} times; what it was answering was asked again")
    return progress
