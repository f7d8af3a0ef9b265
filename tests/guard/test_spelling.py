"""Slips, disguises and missing spaces, and the words that must be left alone."""

from __future__ import annotations

import pytest

from housecall.guard import MedicalGuard
from housecall.guard.spelling import Speller

SPELL = Speller(
    {"cant": ("can", "not")}, ["bleeding", "breathe", "chest", "pain", "kill", "myself"],
    ["wheez"], ["breeding"],
).spell  # fmt: skip


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("bleeding", ("bleeding",)),
        ("bleedng", ("bleeding",)),
        ("bleedinng", ("bleeding",)),
        ("bledeing", ("bleeding",)),
        ("bleedin", ("bleeding",)),
        ("breeding", ("breeding",)),
        ("weeding", ("weeding",)),
        ("wheezing", ("wheezing",)),
        ("k1ll", ("kill",)),
        ("paaain", ("pain",)),
        ("chestpain", ("chest", "pain")),
        ("cantbreathe", ("can", "not", "breathe")),
        ("killmyself", ("kill", "myself")),
        ("xyzzyplugh", ("xyzzyplugh",)),
        ("38", ("38",)),
    ],
)
def test_spelling(written: str, words: tuple[str, ...]) -> None:
    assert SPELL(written) == words


@pytest.mark.parametrize(
    "text",
    [
        "i want to k i l l  m y s e l f",
        "su1c1dal thoughts again",
        "i wanna d!e",
        "iwanttodie",
        "i want to kill my\u200bself",
        "i w\u0430nt to kill mys\u0435lf",
    ],
)
def test_a_disguise_hides_no_crisis(guard: MedicalGuard, text: str) -> None:
    assert guard.check(text).level == "crisis"


@pytest.mark.parametrize(
    "text", ["we tested it", "our prison visit", "dog breeding", "a grouped list"]
)
def test_real_words_are_no_slips(guard: MedicalGuard, text: str) -> None:
    assert guard.check(text).matches == ()
