"""The gate against regressions: ours over the PyTorch reference, in one run, against a committed baseline of ratios.

Absolute times gate nothing. Nor does a baseline of another processor or of other versions, nor a run on a busy machine:
these are only reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ..export.build import export_model
from ..export.synthetic import tiny_dims, write_random_checkpoint
from .cases import Case
from .compare import Change, compare_ratios
from .record import Record
from .run import SubjectSpec, run

BASELINE = Path(__file__).parent / "records" / "gate-baseline.json"
SUBJECT, REFERENCE = "ours", "torch-fp32"
CASES = (Case(1344, 1344, 4, 32), Case(4000, 3000, 1, 2))
"""A request in which prefill and decode count, and one in which reading and preparing the image do."""

LAYERS = 10
BUSY = 1.25
"""From here on other work shares the cores, and does not slow both subjects alike."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's findings; `stale` says why the baseline decides nothing here, empty when it does."""

    changes: list[Change]
    stale: str

    @property
    def passed(self) -> bool:
        """Whether nothing became worse, as far as this machine can tell."""
        return bool(self.stale) or (bool(self.changes) and all(change.verdict != "worse" for change in self.changes))


def check(baseline: Record, folder: Path, say: Callable[[str], None] = lambda line: None) -> Judgement:
    """Measure and judge; what looks worse is measured once more, and counts when it is worse both times."""
    first = judge(baseline, measure(folder / "first", say=say))
    if first.passed:
        return first
    say("something looks worse; measuring once more")
    second = judge(baseline, measure(folder / "second", say=say))
    before = {(change.case, change.metric) for change in first.changes if change.verdict == "worse"}
    changes = [
        change
        if change.verdict != "worse" or (change.case, change.metric) in before
        else replace(change, verdict="same")
        for change in second.changes
    ]
    return Judgement(changes, second.stale)


def measure(
    folder: Path, *, layers: int = LAYERS, rounds: int = 7, say: Callable[[str], None] = lambda line: None
) -> Record:
    """A small model of our own, both subjects in turns. `layers` more than the baseline's are a slowdown to catch."""
    checkpoint, theirs = (
        write_random_checkpoint(folder / name, tiny_dims(hidden_size=512, layers=depth, heads=8, context=4096))
        for name, depth in (("checkpoint", layers), ("reference", LAYERS))
    )
    ours = export_model(checkpoint, folder / "model")
    # One thread each: thread pools that wait for a busy core would measure the neighbours, not us.
    subjects = [SubjectSpec(SUBJECT, SUBJECT, ours, threads=1), SubjectSpec(REFERENCE, REFERENCE, theirs, threads=1)]
    # A process each turn: where its memory happens to lie moves a short decoding step by a fifth, for its whole life.
    return run(subjects, CASES, rounds=rounds, resident=False, say=say)


def judge(baseline: Record, new: Record) -> Judgement:
    """Compare a new record's ratios with the baseline's."""
    return Judgement(compare_ratios(baseline, new, SUBJECT, REFERENCE), _stale(baseline, new))


def _stale(baseline: Record, new: Record) -> str:
    differing = [
        f"{part} {key}: {before} -> {after}"
        for part, keys in (("machine", ("cpu", "cpus")), ("packages", ("onnxruntime", "onnxruntime-genai", "torch")))
        for key in keys
        if (before := baseline.content[part].get(key)) != (after := new.content[part].get(key))
    ]
    for case in new.cases:
        before, after = (list(record.values(REFERENCE, case, "total_s").values()) for record in (baseline, new))
        if before and after and (factor := median(after) / median(before)) > BUSY:
            differing.append(f"the reference itself takes {factor:.2f} times as long on {case}: the machine is busy")
    return "; ".join(differing)
