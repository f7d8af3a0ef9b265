"""Folding a message to words, and the way back to what the user typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.guard import MedicalGuard
from housecall.guard.spelling import Speller
from housecall.guard.text import Break, read_text

SPELL = Speller({"i'm": ("i", "am"), "cannot": ("can", "not")}, []).spell


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'm  OK", ["i", "am", "ok"]),
        ("Na\u00efve Caf\u00e9", ["naive", "cafe"]),
        ("nai\u0308ve", ["naive"]),
        ("pa\u200bin", ["pain"]),
        ("p\u0430in", ["pain"]),  # a Cyrillic a
        ("\u0431\u043e\u043b\u044c", ["\u0431\u043e\u043b\u044c"]),  # a Russian word stays one
        ("\uff30\uff21\uff29\uff2e", ["pain"]),
        ("self-harm", ["self", "harm"]),
        ("mother's", ["mother"]),
        ("39.5 and 1,000", ["39.5", "and", "1,000"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert read_text(text, SPELL).words == words


def test_breaks_stand_before_words() -> None:
    read = read_text("a, b. c\nd ... e", Speller({}, []).spell)
    assert read.breaks == [Break.NONE, Break.COMMA, Break.SENTENCE, Break.LINE, Break.COMMA]


@given(st.text(alphabet="aI'\u2019\u0301\ufb01\u00df\u0130\u200b .,-\u00bd\ud800", max_size=30))
def test_each_word_can_be_read_again_from_its_own_place(text: str) -> None:
    read = read_text(text, Speller({}, []).spell)
    for index, word in enumerate(read.words):
        start, end = read.span(index, index + 1)
        assert 0 <= start < end <= len(text)
        assert word in read_text(text[start:end], Speller({}, []).spell).words


def test_of_a_word_without_end_only_its_beginning_is_kept() -> None:
    for word in ("a" * 40_000, "\u0436" * 40_000, "1" * 40_000):
        read = read_text(word, Speller({}, []).spell)
        assert list(map(len, read.words)) == [200]
        assert read.span(0, 1) == (0, 40_000)


def test_an_accent_typed_apart_belongs_to_its_word() -> None:
    assert read_text("cafe\u0301!", Speller({}, []).spell).span(0, 1) == (0, 5)


NOISE = st.text(alphabet="xyz \u00e9\u200b\ufb01\u00df,", max_size=15)


@given(NOISE, NOISE)
def test_spans_of_matches_hold_what_was_written(before: str, after: str) -> None:
    text = f"{before} My Chest\u200b PAIN {after}"
    matches = [m for m in GUARD.check(text).matches if m.rule == "chest-pain"]
    assert [text[m.start : m.end] for m in matches] == [m.text for m in matches]
    assert any("chest\u200b pain" in match.text.casefold() for match in matches)


GUARD = MedicalGuard.load()
