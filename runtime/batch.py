"""Many requests, several at a time: which of them run together, and what becomes of each.

Rows run in one loop until the last is finished, so requests of similar length run together, no more at a time than the
memory allows. A batch that fails is answered row by row, so that an error stays with the row that caused it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from numbers import Integral

from .answer import Answer
from .backend import Backend, BatchBackend, BatchGeneration, BatchRow, InTurn
from .errors import AnswerError, ContextLengthError, OptionError, Phi3VError
from .machine.device import gpu_memory
from .machine.device_table import row_of
from .machine.memory import available_memory
from .prepare import PreparedRequest, check_memory
from .types import MAX_BATCH_SIZE, GenerationResult

DEFAULT_BATCH_SIZE = 8
Outcome = GenerationResult | Phi3VError
_MIB = 1 << 20
_LOOK_AHEAD = 2
"""Batches' worth of requests to choose from: more make the rows of a batch more alike, and take more memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A request that waits, with its number in the order given."""

    number: int
    prepared: PreparedRequest

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prepared.inputs.input_ids)

    @property
    def image_bytes(self) -> int:
        """Memory of its crops."""
        pixels = self.prepared.inputs.pixel_values
        return 0 if pixels is None else pixels.nbytes


def answer_all(
    backend: Backend,
    requests: Iterable[PreparedRequest | Phi3VError],
    batch_size: int | None = None,
    max_memory: int | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) of every request as soon as it is known. Looks ahead two batches, no further.

    Raises OptionError for a `batch_size` or `max_memory` outside its range.
    """
    room = Room.of(backend, batch_size, max_memory)
    source, waiting = enumerate(requests), list[Item]()
    while True:
        while not room.has_enough(waiting) and (found := next(source, None)):
            number, prepared = found
            refused = prepared if isinstance(prepared, Phi3VError) else room.refuse(prepared)
            if refused is not None:
                yield number, refused
            elif not isinstance(prepared, Phi3VError):
                waiting.append(Item(number, prepared))
        if not waiting:
            return
        group = room.group(waiting)
        waiting = [item for item in waiting if item not in group]
        yield from _answer(backend, group)


@dataclass(frozen=True, slots=True)
class Room:
    """How many rows may run at a time; `budget` in bytes, None where it is unknown."""

    backend: Backend
    batch_size: int
    budget: int | None
    strict: bool
    """Whether the budget was given: then a request that alone exceeds it is refused."""

    @classmethod
    def of(cls, backend: Backend, batch_size: int | None, max_memory: int | None) -> Room:
        """The limits of `Engine.generate_batch` on a backend. Raises OptionError for one outside its range."""
        if batch_size is not None and not (isinstance(batch_size, Integral) and 1 <= batch_size <= MAX_BATCH_SIZE):
            raise OptionError(f"batch_size is {batch_size!r}; allowed: 1 to {MAX_BATCH_SIZE}")
        if max_memory is not None and not (isinstance(max_memory, Integral) and max_memory >= 1):
            raise OptionError(f"max_memory is {max_memory!r}; allowed: a positive number of bytes")
        most = backend.max_batch_size if isinstance(backend, BatchBackend) else 1
        budget = spare_memory(backend) if max_memory is None else max_memory
        return cls(backend, min(batch_size or DEFAULT_BATCH_SIZE, most), budget, max_memory is not None)

    def has_enough(self, waiting: Sequence[Item]) -> bool:
        """Whether there is enough to choose from."""
        images = sum(item.image_bytes for item in waiting)
        full = self.budget is not None and images > self.budget // 8
        return bool(waiting) and (full or len(waiting) >= _LOOK_AHEAD * self.batch_size)

    def refuse(self, prepared: PreparedRequest) -> ContextLengthError | None:
        """The error for a request that cannot run within the memory that was given; None if it can."""
        needed = self.bytes_of([Item(0, prepared)])
        if not self.strict or self.budget is None or needed <= self.budget:
            return None
        return ContextLengthError(
            f"the request needs {needed / _MIB:.0f} MiB of memory ({prepared.most_tokens} tokens with its images and "
            f"{prepared.request.max_new_tokens} new) and max_memory allows {self.budget / _MIB:.0f} MiB; raise it, "
            "lower max_new_tokens or num_crops, or pass fewer images"
        )

    def group(self, waiting: Sequence[Item]) -> list[Item]:
        """The first waiting request, and those most like it that fit beside it."""
        first, past_switch = waiting[0], self.backend.model.past_switch
        side = [item for item in waiting if past_switch(item.length) == past_switch(first.length)]
        group = sorted(side, key=lambda item: _mismatch(item, first))[: self.batch_size]
        held = sum(item.image_bytes for item in waiting)
        while len(group) > 1 and self.budget is not None and self.bytes_of(group) + held > self.budget:
            group.pop()
        return group

    def bytes_of(self, group: Sequence[Item]) -> int:
        """Most bytes that these take together, beside the model."""
        if not isinstance(self.backend, BatchBackend):
            return 0
        new = max(item.prepared.request.max_new_tokens for item in group)
        return self.backend.batch_bytes([item.prepared.inputs for item in group], new)


def _mismatch(item: Item, first: Item) -> int:
    """Tokens of padding and idle steps that the two requests would cost each other."""
    new, first_new = (each.prepared.request.max_new_tokens for each in (item, first))
    return abs(item.length - first.length) + abs(new - first_new)


def spare_memory(backend: Backend) -> int | None:
    """Half of what is free where the model runs."""
    if row_of(backend.device).in_ram:
        free = available_memory()
    else:
        total = gpu_memory(backend.device)
        free = None if total is None else max(0, total - sum(backend.model.graphs.values()))
    return None if free is None else free // 2


def _answer(backend: Backend, group: Sequence[Item]) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of requests that run together."""
    unfinished = dict(enumerate(group))
    try:
        for item in group:
            _check_memory(backend, item.prepared)
        answers = [Answer(backend, item.prepared) for item in group]
        rows = [
            BatchRow(item.prepared.inputs, answer.chooser, item.prepared.request.max_new_tokens)
            for item, answer in zip(group, answers, strict=True)
        ]
        with closing(_start(backend, rows)) as batch:
            while unfinished:
                began = time.perf_counter()
                tokens = batch.step()
                seconds = time.perf_counter() - began
                for row, token in tokens.items():
                    outcome = _push(answers[row], token, seconds)
                    if outcome is not None:
                        batch.leave(row)
                        yield unfinished.pop(row).number, outcome
    except Phi3VError as exc:
        if len(group) == 1:
            yield group[0].number, exc
            return
        for item in unfinished.values():
            yield from _answer(backend, [item])


def _check_memory(backend: Backend, prepared: PreparedRequest) -> None:
    """Refuse what cannot run now, when no other row holds memory any more. Raises ContextLengthError."""
    images = sum(prepared.inputs.image_tokens)
    check_memory(backend, len(prepared.inputs.input_ids) - images, images, prepared.request.max_new_tokens)


def _push(answer: Answer, token: int, seconds: float) -> Outcome | None:
    """Give an answer its next token; returns the outcome with the last one, else None."""
    try:
        answer.push(token, seconds)
    except AnswerError as exc:
        return exc
    return answer.result() if answer.finish_reason else None


def _start(backend: Backend, rows: Sequence[BatchRow]) -> BatchGeneration:
    if len(rows) > 1 and isinstance(backend, BatchBackend):
        return backend.start_batch(rows)
    return InTurn(
        (number, partial(backend.start, row.inputs, row.chooser, row.max_new_tokens)) for number, row in enumerate(rows)
    )
