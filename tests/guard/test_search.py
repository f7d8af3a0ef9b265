"""The search finds what one finds who tries every phrase at every word."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.guard.phrases import Choice, Elements, Gap, parse
from housecall.guard.places import Places
from housecall.guard.search import MOST_PLACES, Hit, Search
from housecall.guard.text import Break, Text, read_text

STOPS = {"not"}

WORDS = st.sampled_from(["a", "b", "c", "b*", "<number 1-5>", "not"])
GAPS = st.sampled_from(["~1", "~2", "~9"])
PIECES = st.recursive(
    WORDS | GAPS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(" ".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"({'|'.join(some)})"),
        inner.map(lambda one: f"({one})?"),
    ),
    max_leaves=6,
)
WITH_A_WORD = st.tuples(st.just("") | PIECES, WORDS, st.just("") | PIECES).map(" ".join)
PATTERNS = WITH_A_WORD | st.lists(WITH_A_WORD, min_size=1, max_size=3).map(
    lambda some: f"({'|'.join(some)})"
)
TEXTS = st.lists(st.sampled_from(["a", "b", "bb", "c", "3", "x", "not", ".", ","]), max_size=30)

State = tuple[int, bool]
"""A word that comes next, and whether any came before it: from nowhere no gap leads on."""


def steps_from(states: Iterable[State], elements: Elements, text: Text) -> set[State]:
    """All ways through the elements, one word at a time."""
    reached = set(states)
    for element in elements:
        if isinstance(element, Choice):
            reached = set().union(*(steps_from(reached, one, text) for one in element.options))
        elif isinstance(element, Gap):
            on = reached
            for _ in range(element.longest):
                on = {(at + 1, True) for at, begun in on if begun and passable(text, at)}
                reached = reached | on
        else:
            reached = {
                (at + 1, True)
                for at, begun in reached
                if at < len(text.words)
                and not (begun and text.breaks[at] == Break.SENTENCE)
                and element.matches(text.words[at])
            }
    return reached


def passable(text: Text, at: int) -> bool:
    if at == len(text.words) or text.breaks[at] == Break.SENTENCE:
        return False
    return text.words[at] not in STOPS


def tried(phrases: list[Elements], text: Text, near: range) -> list[Hit]:
    """What ``Search.find`` is to give."""
    longest: dict[int, tuple[int, bool]] = {}
    for elements in phrases:
        ends = {
            start: max(end for end, _ in reached)
            for start in near
            if (reached := steps_from({(start, False)}, elements, text))
        }
        flood = len(ends) > MOST_PLACES
        for start in list(ends)[:MOST_PLACES]:
            longest[start] = max(longest.get(start, (0, False)), (ends[start], flood))
    return [Hit(start, end, "k", "n", flood) for start, (end, flood) in sorted(longest.items())]


def compare(patterns: list[str], message: str, near: range | None = None) -> None:
    phrases = [elements for pattern in patterns for elements in parse(pattern, {}, {})]
    text = read_text(message, lambda word: (word,))
    places = Places(text)
    search = Search([("k", "n", elements) for elements in phrases], STOPS)
    if near is None:
        assert search.find(places) == tried(phrases, text, range(len(text.words)))
    else:
        inside = range(near.start, min(near.stop, len(text.words)))
        found = search.find(places, places.of([(near.start, near.stop)]))
        assert found == tried(phrases, text, inside)


@given(st.lists(PATTERNS, min_size=1, max_size=3), TEXTS.map(" ".join))
def test_random_phrases(patterns: list[str], message: str) -> None:
    compare(patterns, message)


@given(PATTERNS, TEXTS.map(" ".join), st.integers(0, 5), st.integers(0, 30))
def test_only_near_some_words(pattern: str, message: str, start: int, length: int) -> None:
    compare([pattern], message, range(start, start + length))


@pytest.mark.parametrize(
    "pattern",
    [
        "~2 b",
        "(a)? ~2 b",
        "a (~2 b|c)",
        "((a)? ~1)? b",
        "(a ~2|b) c",
        "a (b)? (c)? ~2 a",
        "(a b|b) c",
    ],
)
@pytest.mark.parametrize("message", ["x a b c a b", "a not b. c b, x x c", "a b c " * 100])
def test_gaps_and_choices_anywhere(pattern: str, message: str) -> None:
    compare([pattern, "c a"], message)
