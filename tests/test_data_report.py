"""The data report: honest figures in a form that people can read."""

from __future__ import annotations

import json
from importlib import resources

import pytest

pytest.importorskip("ftfy", reason="preparing data needs the extra train")

from housecall.data_report import TOPIC_METHOD, _topics, distribution, topic_number


def topic(question: str) -> str:
    names = [*_topics(), "none"]
    return names[topic_number(question)]


def test_a_distribution_counts_every_value_once() -> None:
    found = distribution([3, 4, 12, 12, 119, 40])
    assert (found["least"], found["median"], found["greatest"]) == (3, 12, 119)
    assert found["mean"] == 31.7
    assert [(bin["from"], bin["to"]) for bin in found["histogram"]][:2] == [(0, 9), (10, 19)]
    assert [bin["rows"] for bin in found["histogram"]] == [2, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert distribution([7])["histogram"] == [{"from": 7, "to": 7, "rows": 1}]


@pytest.mark.parametrize("greatest", [1, 9, 11, 12, 99, 512, 100_000])
def test_a_histogram_has_few_bins_of_a_round_width(greatest: int) -> None:
    bins = distribution([0, greatest])["histogram"]
    assert len(bins) <= 12
    assert str(bins[0]["to"] - bins[0]["from"] + 1).rstrip("0") in {"1", "2", "5"}


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("My ear aches and my hearing is gone", "ear, nose and throat"),
        ("I yearn for early shears", "none"),
        ("I have a rash and itching skin", "skin and hair"),
        ("Chest pain and palpitations since morning", "heart and circulation"),
        ("What is wrong with me?", "none"),
    ],
)
def test_topics_are_found_by_whole_words(question: str, expected: str) -> None:
    assert topic(question) == expected


def test_the_topics_are_as_right_as_the_report_says() -> None:
    same = {
        "cardiology": "heart and circulation",
        "dermatology": "skin and hair",
        "eye": "eyes",
        "dental": "teeth and mouth",
        "mental-health": "mind and sleep",
        "gastroenterology": "digestion",
        "ear-nose-throat": "ear, nose and throat",
        "respiratory": "lungs and breathing",
        "pregnancy": "pregnancy and fertility",
    }
    text = (resources.files("housecall") / "data" / "starter.jsonl").read_text("utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["specialty"] in same]
    said = ("\n".join(m["content"] for m in row["messages"]) for row in rows)
    right = sum(topic(text) == same[r["specialty"]] for text, r in zip(said, rows, strict=True))
    assert f"of the {len(rows)} rows" in TOPIC_METHOD
    assert f"names that one for {right}." in TOPIC_METHOD
