"""Which requests run when, in the process that holds the model.

Requests without images that wait run together in a batch, as far as they are alike and memory allows (batch.py). An
image that was read is kept: a question about it runs alone, behind the prefix that is there already, and until an image
has been read once, only one question about it runs. genai's batches can do neither, so prompts with images share a
batch only where they are one of many (`Engine.generate_batch`, `phi3v batch`). At most two batches or single answers
run at a time, a token of each in turns.

The order is that of arrival, but a request waits in addition for as long as reading its own prompt takes. So a short
question overtakes a long one that came just before it, and none overtakes for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ..answer import Answer
from ..backend import Backend, BatchBackend, BatchGeneration, BatchRow, InTurn, ModelInputs, Reuse
from ..batch import DEFAULT_BATCH_SIZE, Item, Room, spare_memory
from ..errors import ContextLengthError, Phi3VError
from ..prepare import PreparedRequest, check_memory
from ..types import MAX_BATCH_SIZE
from .messages import Begun, Ended, Event, Step
from .prefixes import PrefixPool

_LANES = 2
"""Generators that run in turns. Each slows the others down by a whole step, which rows of a batch hardly do."""


_ENOUGH_TOKENS = 64
_SIMILAR = 32
"""Tokens by which prompts of one batch may always differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Job(Item):
    """A request that waits, and the limits it came with."""

    batch_size: int | None = None
    max_memory: int | None = None
    came: float = field(default_factory=time.monotonic)

    @property
    def images_key(self) -> str | None:
        """Equal for the same images; None without."""
        return self.prepared.inputs.images_key if self.prepared.inputs.image_tokens else None

    @property
    def may_share(self) -> bool:
        """Whether it may run in a batch. With images only if it is one of many: a batch keeps nothing that it reads."""
        return self.batch_size is not None or not self.prepared.inputs.image_tokens


@dataclass(slots=True, eq=False)
class _Row:
    """An answer in the making."""

    job: Job
    answer: Answer
    generated: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Most tokens that may still come."""
        return self.job.prepared.request.max_new_tokens - len(self.generated)

    def inputs_so_far(self) -> ModelInputs:
        """The prompt and what was generated behind it, as a prompt."""
        inputs = self.job.prepared.inputs
        if not self.generated:
            return inputs
        return replace(inputs, input_ids=np.concatenate([inputs.input_ids, np.array(self.generated, dtype=np.int32)]))


@dataclass(slots=True, eq=False)
class _Lane:
    """One generator, and the rows in it that have not ended."""

    generation: BatchGeneration
    rows: dict[int, _Row]
    first: Job
    """That of its first row."""
    bytes: int
    reuse: Reuse | None = None
    steps: int = 0
    size: int = 0
    """Rows that it computes, ended or not."""


@dataclass(slots=True)
class Costs:
    """What was measured: seconds for a prompt's token, and for a step by the number of rows."""

    prompt_token_s: float | None = None
    step_s: dict[int, float] = field(default_factory=dict)

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """Add a measurement; a few tokens say more of the overhead."""
        if tokens >= _ENOUGH_TOKENS:
            self.prompt_token_s = _mean(self.prompt_token_s, seconds / tokens)

    def note_step(self, rows: int, seconds: float) -> None:
        """Add a measurement."""
        self.step_s[rows] = _mean(self.step_s.get(rows), seconds)

    def rebuilding_pays(self, size: int, going: Sequence[tuple[int, int]]) -> bool:
        """Whether to read rows of (tokens, tokens still to come) again costs less than computing `size` to their end.

        False while a step of either size was not measured.
        """
        fewer, now = self.step_s.get(len(going)), self.step_s.get(size)
        if fewer is None or now is None or self.prompt_token_s is None:
            return False
        return (now - fewer) * max(left for _, left in going) > self.prompt_token_s * sum(tokens for tokens, _ in going)


def _mean(before: float | None, now: float) -> float:
    return now if before is None else 0.8 * before + 0.2 * now


class Scheduler:
    """Runs requests on a backend, and hands every event of an answer to `emit`.

    `batch_size` is the most rows of a batch (default 8); `max_memory` the bytes beside the model for everything that
    runs or is kept (default: half of what is free now). Raises OptionError for a value outside its range.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Callable[[Event], None],
        *,
        batch_size: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        Room.of(backend, batch_size, max_memory)
        self._backend = backend
        self._emit = emit
        self._batch_size = batch_size or DEFAULT_BATCH_SIZE
        self._max_memory = max_memory
        self._budget = spare_memory(backend) if max_memory is None else max_memory
        self._waiting: list[Job] = []
        self._resumed: list[_Row] = []
        """Rows of a batch that failed: each goes on alone, so that an error stays with the row that caused it."""
        self._lanes: list[_Lane] = []
        self._prefixes = PrefixPool(backend)
        self.costs = Costs()

    @property
    def busy(self) -> bool:
        """Whether there is work to do."""
        return bool(self._waiting or self._lanes or self._resumed)

    def submit(self, job: Job) -> None:
        """Take a request, or refuse one that its memory limit never admits."""
        refused = self._room(job).refuse(job.prepared)
        if refused is None:
            self._waiting.append(job)
        else:
            self._emit(Ended(job.number, None, refused))

    def cancel(self, number: int) -> None:
        """End a request, wherever it is. One that has ended already is ignored."""
        for job in [job for job in self._waiting if job.number == number]:
            self._waiting.remove(job)
            self._end_cancelled(_Row(job, Answer(self._backend, job.prepared)))
        for row in [row for row in self._resumed if row.job.number == number]:
            self._resumed.remove(row)
            self._end_cancelled(row)
        for lane in list(self._lanes):
            for place, row in list(lane.rows.items()):
                if row.job.number == number:
                    self._leave(lane, place)
                    self._end_cancelled(row)

    def work(self) -> None:
        """Start what can start, then compute one token of everything that runs."""
        self._start_waiting()
        for lane in list(self._lanes):
            if lane in self._lanes:
                self._step(lane)

    def _room(self, job: Job) -> Room:
        memory = self._max_memory if job.max_memory is None else job.max_memory
        return replace(
            Room.of(self._backend, min(job.batch_size or self._batch_size, MAX_BATCH_SIZE), memory),
            budget=self._budget if memory is None else memory,
        )

    def _start_waiting(self) -> None:
        while len(self._lanes) < _LANES:
            if self._resumed:
                self._open([self._resumed.pop(0)], 0, None)
                continue
            group = self._next_group()
            if not group or not self._start(group):
                return

    def _next_group(self) -> list[Job]:
        """The jobs that run next; none if all wait for an image that is being read."""
        running = {row.job.images_key for lane in self._lanes for row in lane.rows.values() if lane.reuse is not None}
        ready = [job for job in self._waiting if job.images_key is None or job.images_key not in running]
        if not ready:
            return []
        first = min(ready, key=self._due)
        if not first.may_share or self._is_kept(first):
            return [first]
        seen, company = {first.images_key}, [first]
        for job in sorted(ready, key=self._due):
            known = job.images_key is not None and job.images_key in seen
            if job is first or known or not job.may_share or not _alike(job, first) or self._is_kept(job):
                continue
            seen.add(job.images_key)
            company.append(job)
        room = self._room(first)
        if room.budget is not None:
            room = replace(room, budget=room.budget - sum(lane.bytes for lane in self._lanes))
        return [job for job in room.group(company) if isinstance(job, Job)]

    def _due(self, job: Job) -> float:
        return job.came + (self.costs.prompt_token_s or 0.0) * job.length

    def _is_kept(self, job: Job) -> bool:
        prepared = job.prepared
        return self._prefixes.shared_tokens(prepared.inputs, prepared.request.max_new_tokens) > 0

    def _start(self, group: list[Job]) -> bool:
        """Start jobs together. False if they must wait until something that runs has ended."""
        room = self._room(group[0])
        alone = len(group) == 1
        reuse = self._take_prefix(group[0]) if alone else None
        needed = room.bytes_of(group)
        if room.budget is not None:
            used = sum(lane.bytes for lane in self._lanes)
            if self._lanes and used + needed > room.budget:
                self._put_back(reuse, group[0])
                return False
            self._prefixes.shrink(room.budget - used - needed)
        try:
            self._check_memory(group)
        except ContextLengthError as exc:
            self._put_back(reuse, group[0])
            if self._lanes:
                return False
            if not alone:
                return self._start(group[:1])
            self._waiting.remove(group[0])
            self._emit(Ended(group[0].number, None, exc))
            return True
        for job in group:
            self._waiting.remove(job)
        try:
            rows = [_Row(job, Answer(self._backend, job.prepared)) for job in group]
            self._open(rows, needed, reuse)
        except Phi3VError as exc:
            self._put_back(reuse, group[0])
            for job in group:
                self._emit(Ended(job.number, None, exc))
        return True

    def _take_prefix(self, job: Job) -> Reuse:
        return self._prefixes.take(job.prepared.inputs, job.prepared.request.max_new_tokens)

    def _put_back(self, reuse: Reuse | None, job: Job) -> None:
        if reuse is not None:
            self._prefixes.give_back(reuse, job.prepared.inputs)

    def _check_memory(self, group: Sequence[Job]) -> None:
        """Refuse what cannot run now, once nothing is kept any more. Raises ContextLengthError."""
        for job in group:
            try:
                _check_memory(self._backend, job.prepared)
            except ContextLengthError:
                self._prefixes.shrink(0)
                _check_memory(self._backend, job.prepared)

    def _open(self, rows: list[_Row], needed: int, reuse: Reuse | None) -> None:
        if len(rows) > 1 and isinstance(self._backend, BatchBackend):
            batch = [BatchRow(row.inputs_so_far(), row.answer.chooser, row.left) for row in rows]
            generation: BatchGeneration = self._backend.start_batch(batch)
        else:
            start = self._backend.start if reuse is None else reuse.start
            generation = InTurn(
                (place, partial(start, row.inputs_so_far(), row.answer.chooser, row.left))
                for place, row in enumerate(rows)
            )
        self._lanes.append(_Lane(generation, dict(enumerate(rows)), rows[0].job, needed, reuse, size=len(rows)))

    def _step(self, lane: _Lane) -> None:
        """Compute the next token of a lane's rows."""
        first = lane.steps == 0
        if first:
            for row in lane.rows.values():
                self._emit(Begun(row.job.number, self._tokens_to_read(lane)))
        began = time.perf_counter()
        try:
            tokens = lane.generation.step()
        except Phi3VError as exc:
            self._fail(lane, exc)
            return
        seconds = time.perf_counter() - began
        lane.steps += 1
        if first:
            reused = 0 if lane.reuse is None else lane.reuse.reused_tokens
            self.costs.note_prefill(
                sum(len(row.inputs_so_far().input_ids) for row in lane.rows.values()) - reused, seconds
            )
        else:
            self.costs.note_step(lane.size, seconds)
        for place, token in tokens.items():
            self._push(lane, place, token, seconds)
        if lane in self._lanes and lane.size > len(lane.rows):
            self._rebuild(lane)

    def _tokens_to_read(self, lane: _Lane) -> int:
        tokens = sum(len(row.inputs_so_far().input_ids) for row in lane.rows.values())
        if lane.reuse is None:
            return tokens
        [row] = lane.rows.values()
        return tokens - lane.reuse.shared_tokens(row.job.prepared.inputs, row.left)

    def _push(self, lane: _Lane, place: int, token: int, seconds: float) -> None:
        row = lane.rows[place]
        if lane.reuse is not None and lane.steps == 1:
            row.answer.cached_tokens = lane.reuse.reused_tokens
        row.generated.append(token)
        error: Phi3VError | None = None
        try:
            self._emit(Step(row.job.number, row.answer.push(token, seconds), seconds))
        except Phi3VError as exc:
            error = exc
        if row.answer.finish_reason is not None or error is not None:
            result = row.answer.result() if row.answer.finish_reason is not None else None
            self._leave(lane, place)
            self._emit(Ended(row.job.number, result, error))

    def _leave(self, lane: _Lane, place: int) -> None:
        del lane.rows[place]
        lane.generation.leave(place)
        if not lane.rows:
            self._close(lane)

    def _close(self, lane: _Lane) -> None:
        self._lanes.remove(lane)
        lane.generation.close()
        self._put_back(lane.reuse, lane.first)

    def _fail(self, lane: _Lane, error: Phi3VError) -> None:
        rows = list(lane.rows.values())
        lane.rows.clear()
        self._close(lane)
        if len(rows) > 1:
            self._resumed += rows
        for row in rows if len(rows) == 1 else []:
            row.answer.cancel()
            self._emit(Ended(row.job.number, None, error))

    def _rebuild(self, lane: _Lane) -> None:
        """Go on with the rows that are left in a smaller batch, if reading them again costs less than it saves.

        An answer is expected to go on for as long as it has, within its limit.
        """
        rows, past_switch = list(lane.rows.values()), self._backend.model.past_switch
        if len({past_switch(len(row.inputs_so_far().input_ids)) for row in rows}) > 1:
            return  # no batch takes both
        going = [(len(row.inputs_so_far().input_ids), min(row.left, len(row.generated))) for row in rows]
        if self.costs.rebuilding_pays(lane.size, going):
            needed = lane.bytes * len(rows) // lane.size
            lane.rows.clear()
            self._close(lane)
            self._open(rows, needed, None)

    def _end_cancelled(self, row: _Row) -> None:
        row.answer.cancel()
        self._emit(Ended(row.job.number, row.answer.result()))


def _alike(job: Job, first: Job) -> bool:
    """Whether two prompts are of similar length: the shorter is padded, and padding costs what text does."""
    return abs(job.length - first.length) <= max(_SIMILAR, first.length // 4)


def _check_memory(backend: Backend, prepared: PreparedRequest) -> None:
    images = sum(prepared.inputs.image_tokens)
    check_memory(backend, len(prepared.inputs.input_ids) - images, images, prepared.request.max_new_tokens)
