"""Whether one record is faster or slower than another, and when that cannot be said.

The rule: medians of at least five samples; a change counts when it exceeds both TOLERANCE and three standard errors of
the two medians. Records of different machines, versions or models are not compared, unless told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import OptionError
from .record import Record
from .statistics import MAD_TO_SIGMA, Summary, round_ratios

Verdict = Literal["better", "same", "worse", "too few", "too noisy"]

TOLERANCE = 0.10
"""Changes below a tenth are left alone: runs on one machine differ that much by where memory happens to lie."""

UNDECIDABLE = 0.20
"""With an uncertainty above this nothing can be said."""

FEWEST = 5
_TIMES = ("prepare_s", "prefill_s", "ttft_s", "tpot_s", "total_s")
# Standard error of a median of normal values, in standard errors of the mean: sqrt(pi / 2).
_MEDIAN_ERROR = math.sqrt(math.pi / 2)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a comparison. `factor`: new over old; `band`: how far from 1 it must be to count."""

    subject: str
    case: str
    metric: str
    old: float
    new: float
    band: float
    verdict: Verdict

    @property
    def factor(self) -> float:
        """New over old; above 1 is slower."""
        return self.new / self.old if self.old else math.inf


def compare(old: Record, new: Record, *, allow_different: bool = False) -> list[Change]:
    """Compare the times of two records. Raises OptionError when they are not comparable."""
    if not allow_different:
        refuse_different(old, new)
    common = list(_common(old, new))
    if not common:
        raise OptionError("these records have no subject and case in common; there is nothing to compare")
    return [
        _judge(subject, case, metric, *(_series(record, subject, case, metric) for record in (old, new)))
        for subject, case, metric in common
    ]


def compare_ratios(old: Record, new: Record, subject: str, reference: str) -> list[Change]:
    """Compare `subject`'s times over `reference`'s, each ratio within one run: machines matter less.

    Raises OptionError when a record lacks one of the two.
    """
    for record in (old, new):
        if missing := {subject, reference} - set(record.subjects):
            raise OptionError(f"a record holds {', '.join(record.subjects)}, but not {', '.join(sorted(missing))}")
    return [
        _judge(
            f"{subject}/{reference}", case, metric, *(_ratios(r, subject, reference, case, metric) for r in (old, new))
        )
        for name, case, metric in _common(old, new)
        if name == subject
    ]


def refuse_different(old: Record, new: Record) -> None:
    """Raise OptionError that names every difference which makes two records incomparable."""
    found = list(_differences("", _identity(old), _identity(new)))
    if found:
        raise OptionError(
            "these records are not comparable: " + "; ".join(found) + " (--different compares them all the same)"
        )


def _identity(record: Record) -> dict[str, Any]:
    content = record.content
    # The kernel keeps a little more or less of the same memory for itself from one start to the next.
    machine = content["machine"] | {"ram_bytes": round((content["machine"].get("ram_bytes") or 0) / 2**30)}
    return {"machine": machine, "packages": content["packages"], "models": content["models"]}


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif old != new:
        yield f"{path} {old!r} -> {new!r}"


def _common(old: Record, new: Record) -> Iterator[tuple[str, str, str]]:
    for subject in old.subjects:
        for case in old.cases:
            for metric in _TIMES:
                if all(record.values(subject, case, metric) for record in (old, new)):
                    yield subject, case, metric


def _series(record: Record, subject: str, case: str, metric: str) -> list[float]:
    return list(record.values(subject, case, metric).values())


def _ratios(record: Record, subject: str, reference: str, case: str, metric: str) -> list[float]:
    return round_ratios(record.values(subject, case, metric), record.values(reference, case, metric))


def _judge(subject: str, case: str, metric: str, old: Sequence[float], new: Sequence[float]) -> Change:
    first, second = (Summary.of(values) if values else Summary(0, math.nan, 0.0, 0.0) for values in (old, new))
    errors = [_MEDIAN_ERROR * MAD_TO_SIGMA * s.mad / math.sqrt(max(s.count, 1)) for s in (first, second)]
    uncertainty = 3 * math.hypot(*errors) / first.median if first.median else math.inf
    band = max(TOLERANCE, uncertainty)
    factor = second.median / first.median if first.median else math.nan
    verdict: Verdict = "same"
    if min(first.count, second.count) < FEWEST:
        verdict = "too few"
    elif factor > 1 + band:
        verdict = "worse"
    elif factor < 1 / (1 + band):
        verdict = "better"
    elif uncertainty > UNDECIDABLE:
        verdict = "too noisy"
    return Change(subject, case, metric, first.median, second.median, band, verdict)
