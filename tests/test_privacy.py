"""Personal data is found where it is, and what only looks like it stays."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.privacy import find_personal, given_names, mask


def masked(text: str) -> str:
    return mask(text, find_personal(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call +44 20 7946 0000 now.", "Call [phone] now."),
        ("Call (212) 555-0100 or 212-555-0199.", "Call [phone] or [phone]."),
        ("Ring 1-800-555-0100 or 1-800-GET-WELL.", "Ring [phone] or [phone]."),
        ("My number is 98765 43210", "My number is [phone]"),
        ("Phone: 555 0100 22", "Phone: [phone]"),
        ("Write to first.last+x@mail.example.co.uk.", "Write to [email]."),
        ("See https://example.org/a?b=c. Then", "See [url]. Then"),
        ("See www.example.org, or clinic-example.com/x.", "See [url], or [url]."),
        ("I saw Dr. Miller and Dr Jane O'Neil-Smith.", "I saw Dr. [name] and Dr [name]."),
        ("Mrs. Weber and Mr K. Lee came.", "Mrs. [name] and Mr [name] came."),
        ("Ask doctor maria about it", "Ask doctor [name] about it"),
        ("My name is Thea Miller. I am ill.", "My name is [name]. I am ill."),
        ("my name is rahul and i cough", "my name is [name] and i cough"),
        ("His wife's name is Ines.", "His wife's name is [name]."),
        ("Patient name: Otto Weber", "Patient name: [name]"),
        ("I am Priya from Delhi", "I am [name] from Delhi"),
        ("i'm john, 34 years old", "i'm [name], 34 years old"),
        ("Hi Anna, please rest.", "Hi [name], please rest."),
        ("Please rest. Regards, Lukas Weber", "Please rest. Regards, [name]"),
        ("Rest well. Thanks, Sarah.", "Rest well. Thanks, [name]."),
    ],
)
def test_what_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I am diabetic. I am Diabetic, I'm pregnant and I am Caucasian.",
        "I am worried. I am Hopeful. I'm Christian.",
        "This is Mebendazole. It's Monday.",
        "Call 911 or 112, or 116 123.",
        "BP was 140/90, WBC 13500-17500, platelets 174000 on 2020-05-17 and 12.05.2020.",
        "Right -1.50 -1.00 169 and left 2.00 0.75 149; FSH 4 - 12.60.",
        "Take 500 mg 3 times for 10 days. TSH 0.27-4.2, sequence NM-004343.",
        "The medicine's name is Crocin. The brand name is Calpol.",
        "I have MS. Still, MR. Severe, and DR. Vision is fine.",
        "I told my Dr. She said yes. The Dr. Then asked me. Dear Doctor, Please help.",
        "Thanks, Doctor. Hello Doctor I cough. Thank you. Take care. Regards.",
        "I was told e.g. rest. It hurts in the chest.Please help.in time",
        "Parkinson's, Graves' and Adam's apple; Edward syndrome; Down syndrome.",
        "My name is not important.",
    ],
)
def test_what_is_not_masked(text: str) -> None:
    assert masked(text) == text


def test_places_tell_the_kind_and_where_it_stands() -> None:
    text = "Dr. Miller: a@example.org, www.example.org, 212-555-0100"
    assert [(p.kind, text[p.start : p.end]) for p in find_personal(text)] == [
        ("name", "Miller"),
        ("email", "a@example.org"),
        ("url", "www.example.org"),
        ("phone", "212-555-0100"),
    ]


def test_given_names_are_no_words_of_a_patient() -> None:
    assert len(given_names()) > 500
    words = "hope grace mark will may april rose ill sad sunny pat bill jack art dawn jan sick"
    assert not given_names() & set(words.split())


@given(st.text(alphabet="Dr. aAm@wx:/0123456789-()+nI'\n", max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    places = find_personal(text)
    assert all(a.end <= b.start for a, b in pairwise(places))
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "piece", ["a.", "1 ", "Aa ", "a@", "Dr. A", "x-", "(1) ", "www.", "call 1"]
)
@pytest.mark.timeout(60)
def test_no_pattern_runs_away_on_a_long_text(piece: str) -> None:
    find_personal(piece * 100_000)
