"""How a finding is read: negation, time, person, supposition, question and their scopes."""

from __future__ import annotations

import pytest

from housecall.guard import MedicalGuard

READINGS = [
    ("I have chest pain", "chest-pain", "present"),
    ("no chest pain", "chest-pain", "negated"),
    ("Patient denies chest pain.", "chest-pain", "negated"),
    ("I feel fine without any chest pain", "chest-pain", "negated"),
    ("I don't have chest pain", "chest-pain", "negated"),
    ("i dont have chest pain", "chest-pain", "negated"),
    ("no fever, cough or chest pain", "chest-pain", "negated"),
    ("the doctor said that chest pain was ruled out", "chest-pain", "negated"),
    ("I have no chest pain and no trouble breathing", "breathing", "negated"),
    ("no fever, chest pain since this morning", "chest-pain", "present"),
    ("no fever and I have chest pain", "chest-pain", "present"),
    ("No fever. Chest pain.", "chest-pain", "present"),
    ("no fever\nchest pain", "chest-pain", "present"),
    ("not only chest pain", "chest-pain", "present"),
    ("no idea why I have chest pain", "chest-pain", "present"),
    ("I've never had chest pain like this", "chest-pain", "present"),
    ("I can't stop having chest pain", "chest-pain", "present"),
    ("without warning I got chest pain", "chest-pain", "present"),
    ("I had chest pain in 2010", "chest-pain", "past"),
    ("In 2010, I had chest pain.", "chest-pain", "past"),
    ("Years ago I had chest pain", "chest-pain", "past"),
    ("I had a stroke last year", "stroke", "past"),
    ("my father had a stroke in 2010", "stroke", "past"),
    ("I have a history of chest pain", "chest-pain", "past"),
    ("I had chest pain in 2010 and now I have chest pain again", "chest-pain", "present"),
    ("today I have chest pain like in 2010", "chest-pain", "present"),
    ("I've had chest pain since two days ago", "chest-pain", "present"),
    ("I had chest pain an hour ago", "chest-pain", "present"),
    ("my father is having a stroke", "stroke", "other_person"),
    ("My wife has chest pain", "chest-pain", "other_person"),
    ("he can't breathe", "breathing", "other_person"),
    ("my mother says I look pale and I have chest pain", "chest-pain", "present"),
    ("what if I get chest pain", "chest-pain", "hypothetical"),
    ("If I get chest pain, whom do I call?", "chest-pain", "hypothetical"),
    ("What should I do if someone has chest pain?", "chest-pain", "hypothetical"),
    ("I'm writing a story where the hero has chest pain", "chest-pain", "hypothetical"),
    ("what if this is a heart attack", "chest-pain", "present"),
    ("What causes chest pain?", "chest-pain", "question"),
    ("what are the symptoms of chest pain", "chest-pain", "question"),
    ("What causes my chest pain?", "chest-pain", "present"),
    ("why can't i breathe", "breathing", "present"),
    ("Is testicular torsion more common in teenagers?", "testicular-torsion", "question"),
]


@pytest.mark.parametrize(("text", "rule", "expected"), READINGS)
def test_reading(guard: MedicalGuard, text: str, rule: str, expected: str) -> None:
    found = [match.assertion for match in guard.check(text).matches if match.rule == rule]
    assert expected in found
    if expected not in ("present", "other_person"):
        assert guard.check(text).level == "none"


def test_negation_ends_at_but(guard: MedicalGuard) -> None:
    result = guard.check("no chest pain but I can't breathe")
    readings = {match.rule: match.assertion for match in result.matches}
    assert (readings["chest-pain"], readings["breathing"]) == ("negated", "present")
    assert result.level == "emergency"


@pytest.mark.parametrize("text", ["What is a stroke?", "what are the symptoms of meningitis"])
def test_general_knowledge_is_no_alarm(guard: MedicalGuard, text: str) -> None:
    assert guard.check(text).level == "none"


@pytest.mark.parametrize("prefix", ["", "It's probably nothing, but ", "not sure if serious but "])
def test_playing_down_lowers_nothing(guard: MedicalGuard, prefix: str) -> None:
    assert guard.check(prefix + "my chest hurts and I feel sick").level == "emergency"


@pytest.mark.parametrize(
    "text",
    [
        "i don't want to live",
        "I can't stop thinking about killing myself",
        "what if I killed myself",
    ],
)
def test_a_crisis_in_negated_or_supposed_words_is_one(guard: MedicalGuard, text: str) -> None:
    assert guard.check(text).level == "crisis"


def test_a_gap_does_not_swallow_a_negation(guard: MedicalGuard) -> None:
    assert guard.check("Her face is not drooping").level == "none"
    assert guard.check("Her face is slowly drooping").level == "emergency"


def test_fiction_silences_what_stands_near_it() -> None:
    guard = MedicalGuard.load("US", learned=False)
    heroine = "In my novel the heroine has crushing chest pain."
    rest = "The garden was lovely and we sat outside and had tea. " * 4
    assert guard.check(heroine).level == "none"
    assert guard.check(f"I was busy with my novel. {rest}I have crushing chest pain.").level == (
        "emergency"
    )


def test_what_stands_between_the_parts_of_a_combination_takes_nothing_back() -> None:
    guard = MedicalGuard.load("US", learned=False)
    told = "My jaw aches, my weight is steady (weight steady at 98), and I'm in a cold sweat"
    assert guard.check(told).level == "emergency"


def test_a_combination_needs_all_its_parts(guard: MedicalGuard) -> None:
    assert guard.check("My neck is stiff. I have a headache.").level == "emergency"
    assert guard.check("My neck is stiff.").level == "none"
    matches = guard.check("I have a headache but no stiff neck").matches
    [match] = [match for match in matches if match.rule == "meningitis"]
    assert match.assertion == "negated"
    assert match.text == "headache but no stiff neck"


def test_crisis_stands_over_emergency_and_that_over_dose(guard: MedicalGuard) -> None:
    dose = "how much ibuprofen can I take?"
    emergency = "I have crushing chest pain."
    assert guard.check(dose).level == "dose"
    assert guard.check(f"{emergency} {dose}").level == "emergency"
    assert guard.check(f"{emergency} {dose} I want to kill myself.").level == "crisis"
