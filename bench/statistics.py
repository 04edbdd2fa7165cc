"""The few numbers that describe samples: median, spread, and ratios of what was measured side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Samples in three numbers. `mad` is the median absolute deviation, unscaled."""

    count: int
    median: float
    mad: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summary of at least one value. The 95th percentile is the nearest rank's."""
        middle = statistics.median(values)
        ordered = sorted(values)
        p95 = ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]
        return cls(len(values), middle, statistics.median(abs(value - middle) for value in values), p95)


def round_ratios(above: dict[int, float], below: dict[int, float]) -> list[float]:
    """`above` over `below`, round by round, where both were measured."""
    return [above[n] / below[n] for n in sorted(above.keys() & below.keys()) if below[n] > 0]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as large: the median of the ratios within each round, and the least and the largest of them."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, above: dict[int, float], below: dict[int, float]) -> Ratio | None:
        """Ratio of two series of samples by round; None without a round in common."""
        ratios = round_ratios(above, below)
        return cls(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None
