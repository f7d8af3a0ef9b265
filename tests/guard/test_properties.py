"""What holds for every message, however it is written."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from housecall.guard import MedicalGuard
from housecall.types import Message

GUARD = MedicalGuard.load("GB")
ALARM = "no fever but I can't breathe"
# Letters that grow, shrink or vanish when normalised, and what no encoder takes.
ODD = ["\u200b", "\u0301", "\ufb01", "\u0130", "\u00df", "\ud800", "\u2019", "\uff43", "\x00", "\n"]
PIECES = st.sampled_from([*ODD, "I can't breathe", "chest pain", "no", "but", " ", ". ", "stroke"])


# Measured: at most 51. Seconds belong in benchmarks/: a busy machine must not fail a test.
CALLS_A_CHARACTER = 60


def calls_to_read(text: str) -> int:
    """How many functions the guard calls for a text: work that no clock has to measure."""
    events: Counter[str] = Counter()

    def count(_: FrameType, event: str, __: object) -> None:
        events[event] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        GUARD.check(text)
    finally:
        sys.setprofile(before)
    return events["call"] + events["c_call"]


@settings(deadline=None)  # the first message of a language has its rules compiled
@given(st.lists(PIECES, max_size=12).map("".join))
def test_spans_point_into_the_original(text: str) -> None:
    for match in GUARD.check(text).matches:
        assert 0 <= match.start < match.end <= len(text)
        assert match.text == text[match.start : match.end]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_and_read_alike_twice(text: str) -> None:
    assert GUARD.check(text) == GUARD.check(text)


@pytest.mark.parametrize(
    "text",
    [
        "I can\u2019t breathe",
        "I CAN'T BREATHE",
        "i cant  breathe",
        "I can\u200b't bre\u200bathe",
        "I \uff43an't breathe",
        "I can't\nbreathe",
        "\ud800 I can't breathe",
    ],
)
def test_spelling_does_not_hide_an_emergency(text: str) -> None:
    assert GUARD.check(text).level == "emergency"


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\ud800", "...?!"])
def test_nothing_said_is_nothing_found(text: str) -> None:
    result = GUARD.check(text)
    assert (result.level, result.matches, result.message) == ("none", (), "")
    assert result.language == "und"


def test_version_is_stable_and_the_country_changes_only_the_message() -> None:
    american, unknown = MedicalGuard.load("US"), MedicalGuard.load("ZZ")
    assert american.version == unknown.version == GUARD.version
    assert american.check(ALARM).matches == GUARD.check(ALARM).matches
    assert "911" in american.check(ALARM).message
    assert "999" in GUARD.check(ALARM).message
    assert "your local emergency number" in unknown.check(ALARM).message


def test_history_completes_a_combination_but_alarms_only_on_news() -> None:
    headache = Message("user", "I have a bad headache and a high fever")
    now = "and now my neck is stiff and light hurts my eyes"
    assert GUARD.check(now, [headache]).level == "emergency"
    assert GUARD.check("thank you, what should I eat?", [headache]).level == "none"
    said = GUARD.check(now, [Message("assistant", headache.content)])
    assert said.matches == GUARD.check(now).matches


@pytest.mark.parametrize(
    "unit",
    ["a", "no ", "i ", "chest ", "can not ", "pain in my ", "my father had ", "chest pain ", "'"],
)
def test_adversarial_text_takes_work_in_proportion_to_its_length(unit: str) -> None:
    short, long = (calls_to_read((unit * length)[:length]) for length in (4_096, 32_768))
    assert long <= 8.5 * short
    assert long <= CALLS_A_CHARACTER * 32_768


def test_a_megabyte_is_read_to_its_end() -> None:
    text = "all is well today. " * 55_000 + ALARM
    result = GUARD.check(text)
    assert result.level == "emergency"
    assert result.matches[-1].end == len(text)
