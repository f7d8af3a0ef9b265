"""An allergy is kept however it is said, and as what it says."""

from __future__ import annotations

import pytest

from housecall.facts import draw

PHRASES = """
I'm allergic to penicillin
I have a penicillin allergy
Penicillin gives me hives
Penicillin brings me out in a rash
I can't take penicillin
I break out in hives when I take penicillin
I once had an anaphylactic reaction to penicillin
Allergies: penicillin
allergies - PCN
I react badly to penicillin
My throat swells up if I eat peanuts
The doctors told me never to take penicillin again
Penicillin makes me swell up
I carry an EpiPen because of peanuts
I'm hypersensitive to penicillin
Penicillin almost killed me once
Penicillin put me in hospital when I was a kid
Please note: no penicillin for me
I have to avoid penicillin
Penicillin is off limits for me
I went into shock after a penicillin injection
Last time I took penicillin I ended up covered in a rash
the last time they gave me penicillin I couldn't breathe
Penicillin doesn't agree with me at all
I do not tolerate penicillin
I'm alergic to penicilin
It says penicillin allergy on my medical bracelet
Penicillin and I don't get along
I was diagnosed with an allergy to penicillin as a child
My skin goes red and itchy with penicillin
I'm lactose intolerant
Bee stings send me to the ER
Zithroxil gives me hives
I came out in welts after eating shrimp
Don't give me penicillin, it makes me very sick
My body can't handle penicillin
Penicillin is poison to me
My son is allergic to nuts
I cannot have latex anywhere near me
I swell up like a balloon if I eat shellfish
I should never be given penicillin
I had a bad reaction to the contrast dye
my tongue swelled after amoxicillin
""".strip().splitlines()


@pytest.mark.parametrize("said", PHRASES)
def test_an_allergy_is_kept_in_the_users_words(said: str) -> None:
    [fact] = draw([], f"Good morning. {said}. What helps a cough?", 2)
    assert (fact.kind, fact.turn, fact.text) == ("allergy", 2, said)
    assert not fact.negated


@pytest.mark.parametrize(
    "said",
    [
        "I'm not allergic to penicillin",
        "I am not allergic to anything",
        "No known drug allergies",
        "NKDA",
        "I have no allergies",
        "I've never been allergic to latex",
    ],
)
def test_no_allergy_is_kept_as_none(said: str) -> None:
    [fact] = draw([], said, 2)
    assert fact.text == said
    assert fact.negated


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("I'm allergic to penicillin, can I take amoxicillin?", "I'm allergic to penicillin"),
        ("Is it safe to take this since I'm allergic to nuts?", "I'm allergic to nuts"),
        ("Being allergic to latex, what should I use?", "Being allergic to latex"),
        ("With my penicillin allergy, which one is safe?", "With my penicillin allergy"),
    ],
)
def test_of_a_question_what_it_tells_is_kept(asked: str, told: str) -> None:
    [fact] = draw([], asked, 2)
    assert (fact.kind, fact.text) == ("allergy", told)


@pytest.mark.parametrize(
    "asked",
    [
        "Am I allergic to penicillin?",
        "Can penicillin cause a rash?",
        "can penicillin cause a rash",
        "What if I'm allergic to nuts?",
        "If I were allergic to latex, what would happen?",
        "How do I know whether I'm allergic to cats?",
        "does ibuprofen give people hives",
    ],
)
def test_a_question_is_no_fact(asked: str) -> None:
    assert draw([], asked, 2) == []


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("I see. Are you allergic to any medicines?", "Yes, penicillin."),
        ("Do you have any allergies?", "kiwis and bees"),
        ("Have you ever reacted badly, any reaction to an antibiotic?", "Yes, once."),
        ("Any allergies?", "No"),
    ],
)
def test_a_reply_is_kept_with_its_question(question: str, reply: str) -> None:
    [fact] = draw([], reply, 3, asked=question)
    assert fact.kind == "allergy"
    assert f"\u201c{reply}\u201d" in fact.text
    assert question[-30:] in fact.text
