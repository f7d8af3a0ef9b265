"""A fact that is corrected is kept as corrected, with the user's words, and never invented."""

from __future__ import annotations

import pytest

from housecall.facts import Fact, draw

CORRECTIONS = """
it was not penicillin, it was amoxicillin
Sorry, it wasn't penicillin, it was amoxicillin
I meant amoxicillin, not penicillin
Not penicillin but amoxicillin
I said penicillin but I meant amoxicillin
Correction: amoxicillin, not penicillin
Actually it's amoxicillin I'm allergic to, not penicillin
Sorry, I meant amoxicillin
I mixed up penicillin with amoxicillin
penicillin should be amoxicillin
Oh wait - it was amoxicillin rather than penicillin
It is not penicillin that I'm allergic to, it is amoxicillin
I got that wrong: the allergy is to amoxicillin, not penicillin
It was not penicillin. It was amoxicillin
No, not penicillin - amoxicillin
Earlier I told you penicillin, that was wrong, it is amoxicillin
I'm actually allergic to amoxicillin, not penicillin
it was amoxicillin, not penicillin, that gave me hives
My allergy isn't penicillin, it's amoxicillin
""".strip().splitlines()


def known(*messages: str) -> list[Fact]:
    """The facts after messages in turns 2, 3 and so on."""
    facts: list[Fact] = []
    for turn, message in enumerate(messages, 2):
        facts = draw(facts, message, turn)
    return facts


@pytest.mark.parametrize("said", CORRECTIONS)
def test_a_corrected_allergy(said: str) -> None:
    [fact] = known("I'm allergic to penicillin.", f"{said}.")
    assert fact.text == f"I'm allergic to amoxicillin (corrected: \u201c{said}\u201d)"
    assert (fact.kind, fact.turn, fact.names) == ("allergy", 3, ("amoxicillin",))


@pytest.mark.parametrize(
    ("first", "said", "corrected"),
    [
        ("I'm 34 years old", "I'm not 34, I'm 43", "I'm 43 years old"),
        ("I take 50 mg of zoloft", "it's not 50 mg, it's 5 mg", "I take 5 mg of zoloft"),
        (
            "My operation was in 2019",
            "it was not 2019, it was 2020",
            "My operation was in 2020",
        ),
        ("I have diabetes", "it's not diabetes, it's prediabetes", "I have prediabetes"),
        (
            "My wife is allergic to latex",
            "it was not latex, it was nickel",
            "My wife is allergic to nickel",
        ),
    ],
)
def test_other_corrections(first: str, said: str, corrected: str) -> None:
    [fact] = known(first, said)
    assert fact.text == f"{corrected} (corrected: \u201c{said}\u201d)"


def test_a_second_correction_replaces_the_first() -> None:
    [fact] = known(
        "I'm allergic to penicillin",
        "it was not penicillin, it was amoxicillin",
        "no, it was not amoxicillin, it was ibuprofen",
    )
    assert fact.text.startswith("I'm allergic to ibuprofen (corrected: \u201cno, it was not amox")


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("I'm allergic to penicillin", "I'm not allergic to penicillin after all"),
        ("I'm allergic to penicillin", "I was wrong about the penicillin"),
        ("I take metformin", "I stopped taking metformin"),
        ("I'm allergic to Zithroxil", "it was not Zithroxil, it was Cefamoxal"),
    ],
)
def test_what_is_taken_back_stands_beside_the_fact(first: str, later: str) -> None:
    [fact] = known(first, later)
    assert fact.text == f"{first} (later, turn 3: \u201c{later}\u201d)"
    assert fact.turn == 2


@pytest.mark.parametrize(
    "said",
    [
        "I'm not taking penicillin, I take amoxicillin",
        "They gave me amoxicillin, not penicillin",
        "I take amoxicillin, not penicillin",
        "My son is not allergic to penicillin",
        "My wife is allergic to amoxicillin, not penicillin",
    ],
)
def test_what_corrects_something_else_leaves_an_allergy_alone(said: str) -> None:
    facts = known("I'm allergic to penicillin", said)
    assert facts[0].text == "I'm allergic to penicillin"
    assert facts[1].text == said


@pytest.mark.parametrize("said", ["It's not a cold, it's flu", "No, not today, tomorrow"])
def test_what_was_never_said_is_not_corrected(said: str) -> None:
    assert [fact.text for fact in known("I'm allergic to penicillin", said)] == [
        "I'm allergic to penicillin"
    ]
