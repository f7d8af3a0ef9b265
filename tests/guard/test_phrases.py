"""The pattern language, seen through a search for one pattern."""

from __future__ import annotations

import pytest

from housecall.guard.phrases import PhraseError, choice, parse
from housecall.guard.places import Places
from housecall.guard.search import Search
from housecall.guard.spelling import Speller
from housecall.guard.text import read_text

SPELLINGS = {"can't": ("can", "not"), "cant": ("can", "not"), "cannot": ("can", "not")}
CONCEPTS = {"limb": choice(parse("arm|left leg", SPELLINGS, {}))}


def find(pattern: str, text: str) -> list[str]:
    options = parse(pattern, SPELLINGS, CONCEPTS)
    search = Search([("rule", "r", elements) for elements in options], {"not"})
    read = read_text(text, Speller(SPELLINGS, []).spell)
    spans = [read.span(hit.start, hit.end) for hit in search.find(Places(read))]
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("chest pain", "Chest  PAIN!", ["Chest  PAIN"]),
        ("chest pain", "chest. Pain", []),
        ("chest pain", "chests pain", []),
        ("chest (pain|tight feeling)", "my chest tight feeling", ["chest tight feeling"]),
        ("(my|the)? chest", "the chest", ["the chest", "chest"]),
        ("bleed*", "Bleeding? It bled. It bleeds", ["Bleeding", "bleeds"]),
        ("chest ~2 hurts", "chest really really hurts", ["chest really really hurts"]),
        ("chest ~2 hurts", "chest really really really hurts", []),
        ("chest ~2 hurts", "chest hurts", ["chest hurts"]),
        ("chest ~2 hurts", "chest not hurts", []),
        ("chest ~2 hurts", "chest. It hurts", []),
        ("<limb> numb", "my left leg numb", ["left leg numb"]),
        ("<limb>", "an arm and a left leg", ["arm", "left leg"]),
        ("age <number>", "age 7, age x, age 3/4", ["age 7", "age 3/4"]),
        ("temp <number 38-42>", "temp 37.9 temp 38.5C temp 43", ["temp 38.5"]),
        ("can't breathe", "I cannot breathe, i cant breathe", ["cannot breathe", "cant breathe"]),
        ("can't breathe", "I can\u2019t breathe", ["can\u2019t breathe"]),
        ("a|b c", "b c a", ["b c", "a"]),
    ],
)
def test_patterns(pattern: str, text: str, found: list[str]) -> None:
    assert find(pattern, text) == found


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("face (droop", "'(' without ')'"),
        ("face droop)", "')' without '('"),
        ("face (a|)", "nothing stands"),
        ("", "nothing stands"),
        ("signs?", "must follow a choice"),
        ("chest ~ pain", "a gap is ~1 to ~9"),
        ("chest ~12 pain", "a gap is ~1 to ~9"),
        ("<knee> pain", "no concept <knee>"),
        ("<limb pain", "without '>'"),
        ("chest.*pain", "letters and digits only"),
        ("(chest)?", "without any word"),
        ("~3", "without any word"),
    ],
)
def test_a_pattern_that_is_wrong_says_why(pattern: str, problem: str) -> None:
    with pytest.raises(PhraseError) as error:
        find(pattern, "")
    assert problem in str(error.value)
