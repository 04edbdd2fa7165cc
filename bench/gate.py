"""The gate against regressions: our times relative to the PyTorch reference's, compared with a committed baseline.

Only ratios within one run can fail it, never absolute times. A baseline from another processor or other versions, and
a run on a busy machine, are reported and decide nothing.
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
"""A request dominated by prefill and decode, and one dominated by reading and preparing the image."""

LAYERS = 10
BUSY = 1.25
"""If the reference takes this many times as long as in the baseline, other work shares the cores, and it does not slow
both subjects alike."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's findings. `stale` says why the baseline decides nothing here; it is empty when the baseline counts."""

    changes: list[Change]
    stale: str

    @property
    def passed(self) -> bool:
        """True if nothing became worse, as far as this machine can tell."""
        return bool(self.stale) or (bool(self.changes) and all(change.verdict != "worse" for change in self.changes))


def check(baseline: Record, folder: Path, say: Callable[[str], None] = lambda line: None) -> Judgement:
    """Measure and judge. If something looks worse, measure once more: only what is worse both times counts."""
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
    """Measure a small model and the reference in turns. More `layers` than the baseline's simulate a slowdown."""
    checkpoint, theirs = (
        write_random_checkpoint(folder / name, tiny_dims(hidden_size=512, layers=depth, heads=8, context=4096))
        for name, depth in (("checkpoint", layers), ("reference", LAYERS))
    )
    ours = export_model(checkpoint, folder / "model")
    # One thread each: a pool that waits for a busy core would measure other processes, not us.
    subjects = [SubjectSpec(SUBJECT, SUBJECT, ours, threads=1), SubjectSpec(REFERENCE, REFERENCE, theirs, threads=1)]
    # One process per turn: where a process allocates its memory changes its short decoding steps by a fifth for good.
    return run(subjects, CASES, rounds=rounds, resident=False, say=say)


def judge(baseline: Record, new: Record) -> Judgement:
    """Compare a new record's ratios with the baseline's."""
    return Judgement(compare_ratios(baseline, new, SUBJECT, REFERENCE), _explain_staleness(baseline, new))


def _explain_staleness(baseline: Record, new: Record) -> str:
    """Say why the baseline decides nothing about `new`, or return an empty string."""
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
