"""How often the guard alarms where it should, on messages by someone who had not seen its rules.

At first it found 47 of the 60 urgent ones; the rules were then mended with these very messages, so
they are a floor under regressions now, not an estimate of how well the guard does elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from housecall.guard import MedicalGuard

CASES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "cases_second_author.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
URGENT = ("emergency", "crisis")


@pytest.fixture(scope="module")
def guard() -> MedicalGuard:
    return MedicalGuard.load("US")


def test_cases_are_distinct_and_of_both_kinds() -> None:
    assert len({case["text"] for case in CASES}) == len(CASES)
    assert sum(case["level"] in URGENT for case in CASES) >= 60
    assert sum(case["level"] == "none" for case in CASES) >= 80


def test_recall(guard: MedicalGuard) -> None:
    urgent = [case["text"] for case in CASES if case["level"] in URGENT]
    missed = [text for text in urgent if guard.check(text).level not in URGENT]
    assert len(missed) <= 0.1 * len(urgent), missed


def test_false_alarms(guard: MedicalGuard) -> None:
    harmless = [case["text"] for case in CASES if case["level"] == "none"]
    alarmed = [text for text in harmless if guard.check(text).level in URGENT]
    assert len(alarmed) <= 0.05 * len(harmless), alarmed


def test_crises_are_not_taken_for_emergencies_alone(guard: MedicalGuard) -> None:
    """Both tell a number to call; only the crisis message names people to talk to."""
    crises = [case["text"] for case in CASES if case["level"] == "crisis"]
    wrong = [text for text in crises if guard.check(text).level not in ("crisis", "none")]
    assert len(wrong) <= 1, wrong
