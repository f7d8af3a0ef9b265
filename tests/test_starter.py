"""The built-in data set is what its card says."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources

import pytest

Row = dict[str, object]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    text = (resources.files("housecall") / "data" / "starter.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_at_least_300_dialogues_over_25_specialties(rows: list[dict]) -> None:
    assert len(rows) >= 300
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["specialty"] for row in rows}) >= 25
    assert len({(row["specialty"], row["topic"]) for row in rows}) == len(rows)


def test_a_fifth_has_several_turns_and_turns_alternate(rows: list[dict]) -> None:
    for row in rows:
        roles = [m["role"] for m in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2), row["id"]
    assert sum(len(row["messages"]) > 2 for row in rows) >= len(rows) / 5


def test_no_two_are_alike(rows: list[dict]) -> None:
    seen: Counter[str] = Counter()
    for row in rows:
        for message in row["messages"]:
            for sentence in re.split(r"(?<=[.!?])\s+", message["content"]):
                words = re.findall(r"[a-z0-9']+", sentence.lower())
                if len(words) >= 7:
                    seen[" ".join(words)] += 1
    assert [s for s, n in seen.items() if n > 1] == []


def test_answers_never_give_an_amount_of_a_medicine(rows: list[dict]) -> None:
    amount = re.compile(r"\d+\s*(mg|mcg|ml|milligram|microgram|tablet|pill|capsule|drop)s?\b", re.I)
    for row in rows:
        for message in row["messages"]:
            if message["role"] == "assistant":
                assert not amount.search(message["content"]), row["id"]


def test_many_answers_ask_back(rows: list[dict]) -> None:
    asking = sum(
        any("?" in m["content"] for m in row["messages"] if m["role"] == "assistant")
        for row in rows
    )
    assert asking >= len(rows) / 3


def test_the_card_says_that_nobody_reviewed_it() -> None:
    card = (resources.files("housecall") / "data" / "README.md").read_text("utf-8")
    assert "Written for demonstration. Not reviewed by clinicians." in card
