"""Messages in the other languages: floors under recall and false alarms.

All texts were written before the rules were tuned on them, the first 286 before
``lay-words.yaml``, the others before ``families.yaml`` (docs/guard.md has the figures of first
contact). They guard against regressions and say little about other people's messages.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from housecall.guard import MedicalGuard

FILE = Path(__file__).parent / "cases_languages.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
LANGUAGES = ("de", "es", "fr", "hi", "hi-Latn", "id", "pt", "zh")
URGENT = ("emergency", "crisis")


@pytest.mark.parametrize("language", LANGUAGES)
def test_floors(guard: MedicalGuard, language: str) -> None:
    cases = [case for case in CASES if case["language"] == language]
    levels = [(case, guard.check(case["text"]).level) for case in cases]
    missed = [c["text"] for c, level in levels if c["level"] in URGENT and level not in URGENT]
    alarmed = [c["text"] for c, level in levels if c["level"] == "none" and level in URGENT]
    assert len(missed) <= 1, missed
    assert len(alarmed) <= 1, alarmed


def test_cases_are_distinct_and_of_both_kinds() -> None:
    assert len({case["text"] for case in CASES}) == len(CASES)
    counts = Counter((case["language"], case["level"] in URGENT) for case in CASES)
    assert {language for language, _ in counts} == set(LANGUAGES)
    assert min(counts[language, True] for language in LANGUAGES) >= 11
    assert min(counts[language, False] for language in LANGUAGES) >= 18


def test_a_resolved_finding_is_past_and_a_present_one_is_not() -> None:
    guard = MedicalGuard.load("US", learned=False)
    over = "Fui por un dolor de pecho, el electro salió normal"
    assert guard.check(over).level == "none"
    assert {match.assertion for match in guard.check(over).matches} == {"past"}
    assert guard.check("El electro salió normal. Ahora tengo dolor de pecho").level == "emergency"


def test_hindi_asks_at_the_end_and_a_person_who_is_here_makes_it_no_general_question(
    guard: MedicalGuard,
) -> None:
    asked = guard.check("सांस रुक जाए तो क्या करना चाहिए")
    assert asked.level == "none"
    assert "question" in {match.assertion for match in asked.matches}
    assert guard.check("पापा की सांस रुक रही है, क्या करना चाहिए").level == "emergency"
