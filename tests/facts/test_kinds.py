"""Medicines, conditions, pregnancy, age and dates; and what is none of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.facts import PRIORITY, Fact, draw
from housecall.facts.lexicon import lexicon
from housecall.facts.sentences import fold, statements

KINDS = """
medicine: I take metformin 500 mg twice a day
medicine: I'm on warfarin
medicine: I use an inhaler
medicine: I stopped taking sertraline in May
medicine: I take Zithroxil every morning
medicine: My doctor prescribed something for it
medicine: My mother takes blood thinners
condition: I was diagnosed with type 2 diabetes in 2015
condition: I had my appendix out on 3 March 2019
condition: I had a heart attack last year
condition: My mother had breast cancer
condition: I'm a smoker
condition: I have one kidney
condition: 34F, asthmatic
condition: I suffer from endometriosis
pregnancy: I'm pregnant
pregnancy: I'm 34 weeks pregnant
pregnancy: I'm breastfeeding my baby
pregnancy: I'm trying for a baby
pregnancy: I might be pregnant
pregnancy: I am not pregnant
pregnancy: I'm expecting twins
age: I'm 34 years old
age: I am 67 and live alone
age: My daughter is 3
age: born in 1980
age: I just turned 60
age: I'm a 45-year-old man
date: It started two weeks ago
date: The pain has been there since Monday
date: My appointment is on 12 June
date: It began on 2024-03-05
date: I have had it for three months
""".strip().splitlines()


@pytest.mark.parametrize("line", KINDS)
def test_facts_by_kind(line: str) -> None:
    kind, said = line.split(": ", 1)
    [fact] = draw([], said, 7)
    assert (fact.kind, fact.text, fact.turn) == (kind, said, 7)


@pytest.mark.parametrize(
    "said",
    [
        "What are the symptoms of diabetes?",
        "How much water should I drink",
        "I have a headache",
        "Thanks, that helps a lot",
        "I feel tired and my back hurts",
        "If I were pregnant would that be bad?",
        "What if I'm pregnant?",
        "Could I be pregnant?",
        "I may go for a walk",
        "ok I'll try that tonight",
        "does ibuprofen help with pain",
        "I ate soup and had some bread",
        "I'm on holiday",
        "",
        " \n",
    ],
)
def test_nothing_to_keep(said: str) -> None:
    assert draw([], said, 1) == []


def test_what_is_said_twice_is_kept_once() -> None:
    facts = draw([], "I take aspirin. I TAKE ASPIRIN!", 1)
    assert draw(facts, "I take aspirin", 5) == facts


def test_a_list_under_a_heading_is_one_fact() -> None:
    facts = draw([], "Medication:\n- aspirin 100 mg\n- metformin\n\nAllergies:\n- nuts\n", 1)
    assert [fact.text for fact in facts] == [
        "Medication: aspirin 100 mg, metformin",
        "Allergies: nuts",
    ]


def test_what_others_have_is_about_them() -> None:
    [fact] = draw([], "My wife is allergic to latex", 1)
    assert fact.about == "wife"
    [fact] = draw([], "The last time they gave me penicillin I got hives", 1)
    assert fact.about == "me"


def test_a_very_long_sentence_is_cut_to_what_matters() -> None:
    talk = ", and then we went for a walk in the park" * 12
    [fact] = draw([], f"I got up early{talk}, and I take warfarin{talk}", 1)
    assert len(fact.text) <= 240
    assert "I take warfarin" in fact.text


def test_a_text_without_punctuation_is_read_in_pieces() -> None:
    long = "word " * 20_000
    assert max(len(said.text) for said in statements(long + "x" * 5000)) <= 1000


@given(st.text(max_size=300), st.text(max_size=80))
def test_any_text_can_be_read(message: str, asked: str) -> None:
    facts = draw([], message, 1, asked=asked)
    assert all(fact.text and fact.kind in PRIORITY for fact in facts)
    assert [Fact.of(fact.as_dict()) for fact in facts] == facts
    assert draw(facts, message, 2, asked=asked)[: len(facts)] or not facts


@given(st.text())
def test_folding_keeps_every_place(text: str) -> None:
    assert len(fold(text)) == len(text)


def test_names_are_found_by_their_endings_too() -> None:
    found = {name.text: name.kind for name in lexicon().find("zoliprazole for my gastroduodenitis")}
    assert found == {"zoliprazole": "medicine", "gastroduodenitis": "condition"}
    assert lexicon().find("the diagnosis in april was a routine academia") == []
