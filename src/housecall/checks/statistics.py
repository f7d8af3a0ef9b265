"""Intervals: how far a figure would move on other held-out text of the same kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]

_RESAMPLES = 2000
_Z = 1.959963984540054  # two-sided 95 %


def bootstrap_mean(sums: Sequence[float], counts: Sequence[int], seed: int = 0) -> Interval:
    """95 % percentile interval of sum(sums) / sum(counts).

    Whole groups (dialogues) are drawn with replacement, because the tokens of one answer are not
    independent (Efron 1979; Koehn 2004 for text).
    """
    totals, sizes = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(totals), size=(_RESAMPLES, len(totals)))
    means = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def wilson(right: int, count: int) -> Interval:
    """95 % interval of a proportion (Wilson 1927), which is sound for few questions too."""
    share = right / count
    centre = share + _Z**2 / (2 * count)
    width = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)
