"""Measures several subjects side by side, in turns, so that a machine that drifts slows them all.

Every subject runs in a worker process. In a resident run all are loaded at once and take turns answer by answer. In a
fresh run each turn starts a new process, which also measures loading and the cold start again: for models that do not
fit into memory together. On a GPU a resident subject is loaded once: one that waits takes nothing from the others.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ..errors import InferenceError, OptionError
from ..machine.cuda import gpu_memory_used, gpus
from ..machine.memory import available_memory
from .cases import PROMPT, Case
from .extras import require_extra
from .openvino.subject import read_num_crops
from .record import SUBJECTS_FORMAT, Record
from .subjects import SUBJECTS

T = TypeVar("T")

_SETTLE_S = 0.3
"""Pause between turns: thread pools spin for a while after an answer and would take cores from the next subject."""

_OVERTIME_S = 300.0
"""What an answer may take beyond the run's time before its process is ended."""

_BYTES_IN_MEMORY = {
    "ours": 1.8,
    "ours-int4": 1.8,
    "genai": 1.8,
    "torch-fp32": 2.2,
    "torch-bf16": 1.3,
    "torch-fp16": 1.3,
    "openvino": 3.0,
}
"""Memory that a loaded subject takes, in multiples of its folder's size; estimated generously."""


@dataclass(frozen=True, slots=True)
class SubjectSpec:
    """What to load: a subject's name, its folder, and a label that distinguishes it from others of the same name.

    `cuda_graph`, `sdpa_kernel` and `buffer_step` as in GenaiModel, for "ours". `environment` is added to the process's.
    """

    label: str
    subject: str
    model: Path
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    cuda_graph: bool = False
    sdpa_kernel: int | None = None
    buffer_step: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            raise OptionError(f"subject {self.subject!r} is not known; allowed: {', '.join(SUBJECTS)}")
        if not self.model.is_dir():
            raise OptionError(f"{self.label}: {self.model} is not a folder; give SUBJECT=FOLDER")

    @property
    def fixed_crops(self) -> int | None:
        """The only number of crops the subject can make, if it is fixed: 16 for genai, the folder's for OpenVINO."""
        if self.subject == "openvino":
            return read_num_crops(self.model)
        return 16 if self.subject == "genai" else None

    def takes(self, case: Case) -> bool:
        """True if the subject can measure the case."""
        return self.fixed_crops in (None, case.num_crops)


def run(
    subjects: Sequence[SubjectSpec],
    cases: Sequence[Case],
    *,
    rounds: int = 5,
    resident: bool | None = None,
    minutes: float = math.inf,
    keep_going: bool = False,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Measure every subject on every case, `rounds` times after a warm-up of one answer per case.

    `resident` None keeps all subjects loaded if they fit into memory together. After `minutes` no answer is begun, and
    one that still runs 5 minutes later has failed. With `keep_going` a subject that fails is noted under "failures" in
    the record and left out from there on. `out` is written after every answer, so that a run which ends early leaves
    what it measured. Raises InferenceError when a worker fails, OptionError for repeated labels or cases,
    MissingDependencyError if PyTorch or OpenVINO is needed and not installed.
    """
    _check(subjects, cases, keep_going)
    record = Record.begin(
        SUBJECTS_FORMAT,
        {spec.label: spec.model for spec in subjects},
        out=out,
        settings={"rounds": rounds, "resident": resident, "greedy": True, "prompt": PROMPT},
        cases=[str(case) for case in cases],
        samples=[],
        failures=[],
    )
    for spec in subjects:
        record.content["models"][spec.label] |= _list_settings(spec)
    if resident is None:
        resident = _fit_together(record.content["models"], subjects[0].device)
        record.content["settings"]["resident"] = resident

    def attempt(spec: SubjectSpec, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except InferenceError as exc:
            if not keep_going:
                raise
            say(str(exc))
            record.add("failures", {"subject": spec.label, "error": str(exc)})
            return None

    with tempfile.TemporaryDirectory() as scratch:
        images = {case: case.write_image(Path(scratch)) for case in cases}
        turns = _take_resident_turns if resident else _take_fresh_turns
        for sample in turns(subjects, images, rounds, _Clock(minutes), attempt, say):
            record.add("samples", sample)
    return record


class _Attempt(Protocol):
    """Act for a subject. None: it failed, and the run goes on without it."""

    def __call__(self, spec: SubjectSpec, act: Callable[[], T]) -> T | None: ...


class _Clock:
    """The time a run has."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def is_up(self) -> bool:
        return time.monotonic() > self._end

    @property
    def limit_s(self) -> float:
        """Seconds an answer that begins now may take."""
        return self._end - time.monotonic() + _OVERTIME_S


def _check(subjects: Sequence[SubjectSpec], cases: Sequence[Case], keep_going: bool) -> None:
    """Raise what `run` raises before anything is measured; a missing package is its subject's failure if it goes on."""
    if not keep_going:
        if any(spec.subject.startswith("torch-") for spec in subjects):
            require_extra("export", "torch", "transformers")
        if any(spec.subject == "openvino" for spec in subjects):
            require_extra("bench-openvino", "openvino_genai")
    if len(set(cases)) < len(cases):
        raise OptionError(f"a case is given twice: {', '.join(map(str, cases))}; --rounds repeats them all")
    for spec in subjects:
        if not any(spec.takes(case) for case in cases):
            raise OptionError(f"{spec.label} can do none of the cases: it always makes {spec.fixed_crops} crops")
    if len({spec.label for spec in subjects}) < len(subjects):
        raise OptionError("two subjects have the same label; name them LABEL:SUBJECT=FOLDER")


def _list_settings(spec: SubjectSpec) -> dict[str, Any]:
    chosen = asdict(spec)
    return {name: value for name, value in chosen.items() if name not in ("label", "model")}


def _take_resident_turns(
    subjects: Sequence[SubjectSpec],
    images: dict[Case, Path],
    rounds: int,
    clock: _Clock,
    attempt: _Attempt,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    common = [case for case in images if all(spec.takes(case) for spec in subjects)] or list(images)
    with ExitStack() as stack:
        workers = []
        for spec in subjects:
            first = min((case for case in common if spec.takes(case)), key=lambda case: case.num_crops)
            say(f"starting {spec.label}")
            worker = attempt(spec, partial(_Worker, spec, clock))
            if worker is None:
                continue
            stack.enter_context(closing(worker))
            sample = attempt(spec, partial(worker.measure, first, images[first], 0, say))
            if sample is not None:
                yield sample
                workers.append(worker)
            if spec.device == "cpu":
                # Beside other subjects there, a first answer would wait for them: each start is measured alone.
                worker.close()
        if subjects[0].device == "cpu":
            say("loading all")
            workers = [stack.enter_context(closing(_Worker(each.spec, clock, start=False))) for each in workers]
        for number in range(rounds + 1):
            for case, image in images.items():
                for worker in _rotate(workers, number):
                    if not worker.spec.takes(case):
                        continue
                    if clock.is_up:
                        say(f"time is up in round {number}")
                        return
                    sample = attempt(worker.spec, partial(worker.measure, case, image, number, say))
                    if sample is None:
                        workers.remove(worker)
                    else:
                        yield sample
                        time.sleep(_SETTLE_S)


def _take_fresh_turns(
    subjects: Sequence[SubjectSpec],
    images: dict[Case, Path],
    rounds: int,
    clock: _Clock,
    attempt: _Attempt,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    failed: set[str] = set()
    for number in range(1, rounds + 1):
        for spec in _rotate(subjects, number):
            if spec.label in failed:
                continue
            if clock.is_up:
                say(f"time is up in round {number}")
                return
            say(f"loading {spec.label}")
            worker = attempt(spec, partial(_Worker, spec, clock))
            if worker is None:
                failed.add(spec.label)
                continue
            with closing(worker):
                for sample in _take_fresh_turn(worker, images, number, clock, attempt, say):
                    if sample is None:
                        failed.add(spec.label)
                        break
                    yield sample


def _take_fresh_turn(
    worker: _Worker,
    images: dict[Case, Path],
    number: int,
    clock: _Clock,
    attempt: _Attempt,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any] | None]:
    """Measure a subject's cases, each behind two tokens of its own shape: the first pays for memory and plans."""
    own = sorted((case for case in images if worker.spec.takes(case)), key=lambda case: case.num_crops)
    for case in own:
        if clock.is_up:
            return
        short = replace(case, new_tokens=2)
        warm_up = attempt(worker.spec, partial(worker.measure, short, images[case], 0, say))
        yield warm_up and warm_up | {"round": number, "warmup": True}
        yield attempt(worker.spec, partial(worker.measure, case, images[case], number, say))


def _rotate(items: Sequence[T], number: int) -> list[T]:
    """Keep the order, but begin with another item each round."""
    start = number % max(1, len(items))
    return [*items[start:], *items[:start]]


def _fit_together(models: dict[str, dict[str, Any]], device: str) -> bool:
    free = available_memory() if device == "cpu" else sum(gpu.memory_bytes for gpu in gpus()[:1])
    needed = sum(model["bytes"] * _read_growth(model["subject"]) for model in models.values())
    return free is None or needed < 0.7 * free


def _read_growth(subject: str) -> float:
    if subject not in _BYTES_IN_MEMORY:
        raise OptionError(
            f"nobody has said how much memory {subject} takes; add it to _BYTES_IN_MEMORY in bench/run.py, or give "
            "--resident or --fresh"
        )
    return _BYTES_IN_MEMORY[subject]


class _Worker:
    """A subject's process, to be closed.

    `start`: its first answer includes load_s, cold_start_s, and the memory of the GPU that the process took until then.
    """

    def __init__(self, spec: SubjectSpec, clock: _Clock, *, start: bool = True) -> None:
        self.spec, self._clock = spec, clock
        self._gpu_used_before = gpu_memory_used()
        self._spawned = time.monotonic()
        arguments = {**asdict(spec), "model": str(spec.model)}
        # -P: do not import from the current folder.
        command = [sys.executable, "-P", "-m", "phi3v.bench.worker", json.dumps(arguments)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **spec.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        load_s = self._read()["load_s"]
        self._load_s: float | None = load_s if start else None

    def measure(self, case: Case, image: Path, number: int, say: Callable[[str], None]) -> dict[str, Any]:
        """Have one case answered, and return the sample for the record. Round 0 is warm-up."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # _read reports a process that is gone
            self._process.stdin.write(json.dumps({"case": str(case), "image": str(image)}) + "\n")
            self._process.stdin.flush()
        answer = self._read()
        first_token_at = answer.pop("first_token_at")
        preprocess_s = answer["preprocess_s"]
        answer["prepare_s"] = None if preprocess_s is None else (answer["image_decode_s"] or 0.0) + preprocess_s
        answer["tpot_s"] = answer["decode_s"] / answer["decode_tokens"]
        if self._load_s is not None:
            answer |= {"load_s": self._load_s, "cold_start_s": first_token_at - self._spawned}
            self._load_s = None
            if self._gpu_used_before is not None and answer["gpu_used_bytes"] is not None:
                answer["gpu_used_bytes"] -= self._gpu_used_before
        else:
            answer["gpu_used_bytes"] = None
        say(
            f"round {number} {self.spec.label} {case}: TTFT {answer['ttft_s']:.3f} s, "
            f"{1 / answer['tpot_s']:.2f} tokens/s"
        )
        return {"subject": self.spec.label, "case": str(case), "round": number, "warmup": number == 0} | answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        limit = min(self._clock.limit_s, threading.TIMEOUT_MAX)
        timer = threading.Timer(limit, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"its process ended ({self._process.wait()})"}
        if "error" in answer:
            self.close()
            raise InferenceError(f"{self.spec.label} failed: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
