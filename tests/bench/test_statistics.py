"""What counts as a difference, held against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.bench.statistics import paired_ratio, percentile, spread

VALUES = st.lists(st.floats(0.001, 1000), min_size=1, max_size=40)


@given(VALUES, st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.quantile(values, share)))


@given(VALUES)
def test_a_spread_holds_its_median(values: list[float]) -> None:
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert found.count == len(values)


def test_an_interval_worked_out_by_hand() -> None:
    """Logarithms 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, t of 99 % and 2 degrees 9.925."""
    theirs = [1.0, 1.0, 1.0]
    found = paired_ratio([math.exp(x) for x in (0.1, 0.2, 0.3)], theirs)
    half = 9.925 * 0.1 / math.sqrt(3)
    assert found.ratio == pytest.approx(math.exp(0.2))
    assert found.interval == pytest.approx((math.exp(0.2 - half), math.exp(0.2 + half)))
    assert not found.differs


def test_one_round_has_no_interval_and_no_difference() -> None:
    found = paired_ratio([2.0], [1.0])
    assert found.interval is None
    assert not found.differs


@pytest.mark.parametrize("rounds", [3, 5, 20])
def test_equal_models_are_rarely_called_different(rounds: int) -> None:
    """Noise of 10 %, and a machine that slows both down together: one in a hundred at most."""
    random = np.random.default_rng(1)
    called = 0
    for _ in range(2000):
        slow = random.lognormal(0, 0.5, rounds)
        ours, theirs = (slow * random.lognormal(0, 0.1, rounds) for _ in range(2))
        called += paired_ratio(ours.tolist(), theirs.tolist()).differs
    assert called / 2000 < 0.02


def test_a_real_difference_is_seen_through_a_machine_that_changes() -> None:
    random = np.random.default_rng(2)
    slow = random.lognormal(0, 0.5, 5)
    ours = slow * 1.3 * random.lognormal(0, 0.02, 5)
    theirs = slow * random.lognormal(0, 0.02, 5)
    found = paired_ratio(ours.tolist(), theirs.tolist())
    assert found.differs
    assert found.ratio == pytest.approx(1.3, rel=0.05)
