"""Figures as the text of a table's cell."""

from __future__ import annotations

from collections.abc import Sequence

from housecall.bench.report import Figure

NONE = "-"
"""What stands where nothing was measured."""


def with_range(figure: Figure) -> str:
    """A median with the lowest and the highest value."""
    if figure.count == 1:
        return f"{figure.median:.1f}"
    return f"{figure.median:.1f} ({figure.low:.1f} to {figure.high:.1f})"


def median(figure: Figure | None, spec: str) -> str:
    """A median alone."""
    return NONE if figure is None else f"{figure.median:{spec}}"


def scaled(value: int | None, unit: float, spec: str) -> str:
    """A count in a larger unit."""
    return NONE if value is None else f"{value / unit:{spec}}"


def share(value: float | None) -> str:
    """Per cent."""
    return NONE if value is None else f"{value:.0%}"


def accuracy(value: float, interval: tuple[float, float]) -> str:
    """A proportion with its interval."""
    return f"{value:.0%} ({interval[0]:.0%} to {interval[1]:.0%})"


def range_of(values: Sequence[int]) -> str:
    """One number, or the lowest and the highest."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
