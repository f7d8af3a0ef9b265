"""The rule packs' own examples: what a clinician wrote beside a rule is what the rule does."""

from __future__ import annotations

from importlib import resources

import pytest

from housecall.guard import MedicalGuard
from housecall.guard.packs import Rule, read_packs

ALARMING = ("present", "other_person")
FOLDER = resources.files("housecall.guard") / "packs"
LANGUAGES = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())
ALL = {language: read_packs(FOLDER / language) for language in LANGUAGES}
PACKS = ALL["en"]
RULES = [rule for pack in PACKS.values() for rule in pack.rules]
EVERY = [(n, rule) for n in LANGUAGES for pack in ALL[n].values() for rule in pack.rules]
POSITIVE = [
    pytest.param(r, text, id=f"{n}: {r.id}: {text}")
    for n, r in EVERY
    for text in r.examples.positive
]
NEGATIVE = [
    pytest.param(r, text, id=f"{n}: {r.id}: {text}")
    for n, r in EVERY
    for text in r.examples.negative
]


@pytest.fixture(scope="module")
def guard() -> MedicalGuard:
    return MedicalGuard.load("US", off_topic="warn")


def alarms(guard: MedicalGuard, text: str) -> set[str]:
    return {m.rule for m in guard.check(text).matches if m.assertion in ALARMING}


@pytest.mark.parametrize(("rule", "text"), POSITIVE)
def test_positive_example_raises_the_alarm(guard: MedicalGuard, rule: Rule, text: str) -> None:
    assert rule.id in alarms(guard, text)
    assert guard.check(text).level != "none"


@pytest.mark.parametrize(("rule", "text"), NEGATIVE)
def test_negative_example_does_not(guard: MedicalGuard, rule: Rule, text: str) -> None:
    assert rule.id not in alarms(guard, text)
    harmless = ("none", "dose", "off_topic")
    assert rule.level in ("dose", "off_topic") or guard.check(text).level in harmless


def test_the_presentations_of_the_first_version_are_there() -> None:
    levels = {rule.id: rule.level for rule in RULES}
    urgent = {"chest-pain", "stroke", "breathing", "anaphylaxis", "bleeding", "meningitis"}
    urgent |= {"thunderclap-headache", "poisoning", "seizure", "unconscious", "infant-fever"}
    urgent |= {"cauda-equina", "testicular-torsion", "pregnancy-bleeding", "sepsis", "head-injury"}
    crises = {"suicidal-thoughts", "no-wish-to-live", "suicide-plan", "self-harm", "violence"}
    assert {levels[rule] for rule in urgent} == {"emergency"}
    assert {levels[rule] for rule in crises} == {"crisis"}
    assert {rule.level for rule in RULES} == {"emergency", "crisis", "dose", "off_topic"}


def test_there_are_forty_presentations_and_eight_other_languages() -> None:
    assert sum(rule.level in ("emergency", "crisis") for rule in RULES) >= 40
    assert LANGUAGES == ["de", "en", "es", "fr", "hi", "hi-Latn", "id", "pt", "zh"]
    for language in LANGUAGES:
        levels = {rule.level for pack in ALL[language].values() for rule in pack.rules}
        assert {"emergency", "crisis"} <= levels


def test_every_emergency_says_what_it_may_be() -> None:
    assert all(rule.sign for rule in RULES if rule.level == "emergency")


def test_packs_say_that_no_clinician_has_reviewed_them() -> None:
    assert {pack.review for packs in ALL.values() for pack in packs.values()} == {
        "written by the project, not reviewed by clinicians"
    }
