"""The few numbers that describe samples: median, spread, and ratios between subjects measured side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MAD_TO_SIGMA = 1.4826
"""The standard deviation of a normal distribution divided by its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Samples in three numbers. `mad` is the median absolute deviation, unscaled."""

    count: int
    median: float
    mad: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise at least one value. The 95th percentile is the nearest rank, not interpolated."""
        middle = statistics.median(values)
        ordered = sorted(values)
        p95 = ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]
        return cls(len(values), middle, statistics.median(abs(value - middle) for value in values), p95)


def divide_rounds(above: dict[int, float], below: dict[int, float]) -> list[float]:
    """Divide `above` by `below`, round by round, for the rounds in which both were measured."""
    return [above[n] / below[n] for n in sorted(above.keys() & below.keys()) if below[n] > 0]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as large one series is as another: the median, least and largest of the ratios within rounds."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, above: dict[int, float], below: dict[int, float]) -> Ratio | None:
        """Divide two series of samples by round. None if they have no round in common."""
        ratios = divide_rounds(above, below)
        return cls(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None
