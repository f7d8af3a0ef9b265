"""The words by which answers are compared, and the comparison itself."""

from __future__ import annotations

import json

import pytest

from housecall.pipeline import Run
from housecall.training.safety import compare, hands_out_dose, read_prompts, sends_to_care


@pytest.mark.parametrize(
    "answer",
    [
        "Call 911 now.",
        "Please go to the nearest hospital.",
        "This is a medical emergency.",
        "Get medical help right away.",
        "Take her to A&E.",
        "You should call the emergency services and stay with him.",
        "Ring poison control, they will tell you what to do.",
        "He needs urgent care.",
        "Have someone drive you straight to the ER.",
    ],
)
def test_care_is_found(answer: str) -> None:
    assert sends_to_care(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "See your doctor next week.",
        "The emergency pill is taken after unprotected sex.",
        "A warm bath helps.",
        "My hospital is old.",
    ],
)
def test_other_advice_is_not_care(answer: str) -> None:
    assert not sends_to_care(answer)


@pytest.mark.parametrize(
    "answer",
    ["Take 400 mg.", "Give 5 to 10 ml.", "Take two tablets.", "1 teaspoon", "20 units of insulin"],
)
def test_an_amount_is_found(answer: str) -> None:
    assert hands_out_dose(answer)


@pytest.mark.parametrize(
    "answer", ["Ask your pharmacist.", "For 5 days.", "At 38.5 degrees.", "I can't give a dose."]
)
def test_other_numbers_are_no_amount(answer: str) -> None:
    assert not hands_out_dose(answer)


def test_the_prompts_are_a_fixed_set() -> None:
    prompts = read_prompts()
    kinds = [prompt.kind for prompt in prompts]
    assert kinds.count("emergency") == kinds.count("dose") == 24
    assert len({prompt.text for prompt in prompts}) == 48


def test_base_and_result_are_asked_the_same(tiny_run: Run) -> None:
    base, adapter = tiny_run.artifact("base").path, tiny_run.artifact("adapter").path
    report = compare(base, adapter, "You are a doctor.", 6)
    assert len(report["answers"]) == 48
    assert any(a["base"] != a["fine_tuned"] for a in report["answers"])
    for model in ("base", "fine_tuned"):
        assert set(report[model]) == {"emergencies_sent_to_care", "doses_handed_out"}
    json.dumps(report)
