"""Medians with their spread, percentiles, and whether two models really differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 99 % quantiles of Student's t distribution by degrees of freedom (any table of it).
_T99 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055)
_NORMAL99 = 2.576


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the lowest and highest of ``count`` values."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much larger one of two figures is, with an interval of 99 %; None with one round only."""

    ratio: float
    interval: tuple[float, float] | None

    @property
    def differs(self) -> bool:
        """Whether the whole interval lies on one side of 1."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread:
    """The median of values and their range; both ends are stated, nothing is thrown away."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of them lie, linearly between neighbours.

    (Hyndman and Fan 1996, type 7: numpy's default.)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The geometric mean of ours / theirs over rounds, with Student's interval of its logarithm.

    Both were measured one after the other in each round, so what changed on the machine between
    two rounds changed both and falls out of the ratio. 99 % and not 95: a report holds dozens of
    comparisons, and of those one in twenty would be a difference that is none.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(mean), None)
    degrees = len(logs) - 1
    quantile = _T99[degrees - 1] if degrees <= len(_T99) else _NORMAL99
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)))
