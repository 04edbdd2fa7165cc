"""Decides whether one record is faster or slower than another, or that the samples cannot tell.

The rule: medians of at least five samples; a change counts when it exceeds both TOLERANCE and three standard errors of
the two medians. Records from different machines, versions or models are only compared on request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import OptionError
from .record import Record
from .statistics import MAD_TO_SIGMA, Summary, divide_rounds

Verdict = Literal["better", "same", "worse", "too few", "too noisy"]

TOLERANCE = 0.10
"""Smaller changes do not count: two runs on one machine differ by that much, depending on where memory is allocated."""

UNDECIDABLE = 0.20
"""If the uncertainty is larger than this, the samples are too noisy to decide."""

FEWEST = 5
"""Fewer samples than this decide nothing."""

_TIMES = ("prepare_s", "prefill_s", "ttft_s", "tpot_s", "total_s")
# The standard error of the median of normal values, in standard errors of their mean, is sqrt(pi / 2).
_MEDIAN_ERROR = math.sqrt(math.pi / 2)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a comparison: the medians of both records. `band`: how far from 1 their ratio must be to count."""

    subject: str
    case: str
    metric: str
    old: float
    new: float
    band: float
    verdict: Verdict

    @property
    def factor(self) -> float:
        """New time divided by old time; above 1 is slower."""
        return self.new / self.old if self.old else math.inf


def compare(old: Record, new: Record, *, allow_different: bool = False) -> list[Change]:
    """Compare the times of two records. Raises OptionError if they are not comparable, unless `allow_different`."""
    if not allow_different:
        refuse_different(old, new)
    common = list(_list_common(old, new))
    if not common:
        raise OptionError("these records have no subject and case in common; there is nothing to compare")
    return [
        _judge(subject, case, metric, *(_list_values(record, subject, case, metric) for record in (old, new)))
        for subject, case, metric in common
    ]


def compare_ratios(old: Record, new: Record, subject: str, reference: str) -> list[Change]:
    """Compare the ratios of `subject`'s times to `reference`'s, each taken within one round.

    Ratios depend less on the machine than times do. Raises OptionError if a record lacks one of the two.
    """
    for record in (old, new):
        if missing := {subject, reference} - set(record.subjects):
            raise OptionError(f"a record has {', '.join(record.subjects)}, but not {', '.join(sorted(missing))}")
    return [
        _judge(
            f"{subject}/{reference}",
            case,
            metric,
            *(_divide(r, subject, reference, case, metric) for r in (old, new)),
        )
        for name, case, metric in _list_common(old, new)
        if name == subject
    ]


def refuse_different(old: Record, new: Record) -> None:
    """Raise OptionError if machine, packages or the models of both differ; the message names every difference."""
    both = [label for label in old.subjects if label in new.subjects]
    found = list(_find_differences("", _identify(old, both), _identify(new, both)))
    if found:
        raise OptionError(
            "these records are not comparable: " + "; ".join(found) + " (--different compares them anyway)"
        )


def _identify(record: Record, labels: Sequence[str]) -> dict[str, Any]:
    content = record.content
    # In whole GiB: how much of the same memory the kernel reserves varies a little from one boot to the next.
    machine = content["machine"] | {"ram_bytes": round((content["machine"].get("ram_bytes") or 0) / 2**30)}
    models = {label: content["models"][label] for label in labels}
    return {"machine": machine, "packages": content["packages"], "models": models}


def _find_differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _find_differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif old != new:
        yield f"{path} {old!r} -> {new!r}"


def _list_common(old: Record, new: Record) -> Iterator[tuple[str, str, str]]:
    for subject in old.subjects:
        for case in old.cases:
            for metric in _TIMES:
                if all(record.values(subject, case, metric) for record in (old, new)):
                    yield subject, case, metric


def _list_values(record: Record, subject: str, case: str, metric: str) -> list[float]:
    return list(record.values(subject, case, metric).values())


def _divide(record: Record, subject: str, reference: str, case: str, metric: str) -> list[float]:
    return divide_rounds(record.values(subject, case, metric), record.values(reference, case, metric))


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
