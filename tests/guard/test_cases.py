"""Messages as patients write them: floors under recall and false alarms.

The same author wrote the rules and these cases, so the figures say what the guard was made to do,
not how well it does elsewhere (docs/guard.md has the first figure of each round).
"""

from __future__ import annotations

import json
from pathlib import Path

from housecall.guard import MedicalGuard

FILE = Path(__file__).parent / "cases.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
URGENT = ("emergency", "crisis")


def test_floors(guard: MedicalGuard) -> None:
    levels = [(case, guard.check(case["text"]).level) for case in CASES]
    urgent = [(case, level) for case, level in levels if case["level"] in URGENT]
    harmless = [(case, level) for case, level in levels if case["level"] == "none"]
    missed = [case["text"] for case, level in urgent if level not in URGENT]
    alarmed = [case["text"] for case, level in harmless if level in URGENT]
    recall, false_alarms = 1 - len(missed) / len(urgent), len(alarmed) / len(harmless)
    print(
        f"recall {recall:.3f} of {len(urgent)}, false alarms {false_alarms:.3f} of {len(harmless)}"
    )
    assert recall >= 0.9, missed
    assert false_alarms <= 0.05, alarmed


def test_cases_are_distinct_and_many() -> None:
    assert len({case["text"] for case in CASES}) == len(CASES)
    assert sum(case["level"] in URGENT for case in CASES) >= 60
    assert sum(case["level"] == "none" for case in CASES) >= 80
