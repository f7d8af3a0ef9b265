"""What the user is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from housecall.errors import ConfigError
from housecall.guard import MedicalGuard
from housecall.guard.messages import load_messages

EMERGENCY = "I have crushing chest pain"
CRISIS = "I want to kill myself"
DOSE = "how much ibuprofen can I take?"


@pytest.mark.parametrize(
    ("country", "number"),
    [
        ("US", "911"),
        ("ca", "911"),
        ("GB", "999"),
        ("UK", "999"),
        ("EU", "112"),
        ("DE", "112"),
        ("AU", "000"),
        ("NZ", "111"),
        ("IN", "112"),
        ("BR", "your local emergency number"),
        (None, "your local emergency number"),
    ],
)
def test_number_of_the_country(country: str | None, number: str) -> None:
    guard = MedicalGuard.load(country)
    assert f"call {number} now" in guard.check(EMERGENCY).message
    assert f"call {number} now" in guard.check(CRISIS).message


@pytest.mark.parametrize(
    ("country", "line"),
    [("US", "988"), ("CA", "988"), ("GB", "116 123"), ("FR", "crisis line in your country")],
)
def test_crisis_line_of_the_country(country: str, line: str) -> None:
    assert line in MedicalGuard.load(country).check(CRISIS).message


@pytest.mark.parametrize("country", ["USA", "", "1", "United States"])
def test_a_country_that_is_no_code_is_refused(country: str) -> None:
    with pytest.raises(ConfigError, match="two letters"):
        MedicalGuard.load(country)


def test_message_names_each_sign_once(guard: MedicalGuard) -> None:
    message = guard.check("chest pain, pain in my chest, I can't breathe and I passed out").message
    assert message.count("a heart attack") == 1
    signs = "a heart attack, severe trouble breathing or a dangerous loss of consciousness"
    assert signs in message


def test_crisis_and_emergency_are_both_told_and_the_dose_is_not(guard: MedicalGuard) -> None:
    crisis, emergency = guard.check(f"I took 40 pills. {CRISIS}. {DOSE}").message.split("\n\n")
    assert "988" in crisis
    assert "poisoning" in emergency


def test_violence_has_its_own_message(guard: MedicalGuard) -> None:
    result = guard.check("my husband hits me")
    assert result.level == "crisis"
    assert "not your fault" in result.message
    assert "988" not in result.message


def test_nothing_found_and_nothing_meant_say_nothing(guard: MedicalGuard) -> None:
    assert guard.check("My knee hurts when I climb stairs").message == ""
    assert guard.check("I have no chest pain").message == ""


def test_fields_on_the_wire(guard: MedicalGuard) -> None:
    assert guard.check("no chest pain").as_dict() == {
        "level": "none",
        "matches": [
            {
                "rule": "chest-pain",
                "text": "chest pain",
                "start": 3,
                "end": 13,
                "assertion": "negated",
            }
        ],
        "language": "en",
        "message": "",
        "output": [],
        "covered": True,
    }


def test_a_message_with_an_unknown_brace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "messages.yaml"
    file.write_text(
        "review: r\nlanguages: {en: {emergency_number: e, crisis_line: c, last_or: or, "
        "messages: {emergency: 'call {number}'}}}\ncountries: {}\n"
    )
    with pytest.raises(ConfigError, match=r"'emergency'.*'number'.*emergency_number"):
        load_messages(file, None)
