"""The shape of the guard's data: enough of each kind, no text twice, the splits apart.

Says nothing about the guard. What fails is named by id, so that whoever reads a failure has not
read the test split.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

Text = dict[str, Any]

FOLDER = Path(__file__).parent / "data"
SPLITS = ("test", "dev")
FILES = {
    "test": FOLDER / "test.jsonl",
    "dev": Path(str(resources.files("housecall") / "data" / "guard_dev.jsonl")),
}
TRAINING = [
    FOLDER / f"{name}.jsonl"
    for name in ("train", "train_languages", "train_crises", "train_everyday", "train_patients")
]
FIELDS = {
    "id": str,
    "text": str,
    "language": str,
    "expect": str,
    "presentation": str,
    "held_out_presentation": bool,
    "person": str,
    "style": str,
    "length": str,
}
VALUES = {
    "language": {"en", "es", "fr", "de", "pt", "hi", "hi-Latn", "id", "zh"},
    "expect": {"emergency", "crisis", "dose", "none"},
    "person": {"first", "third"},
    "style": {"clean", "messy"},
}
KINDS = {
    "worried",
    "negated",
    "past",
    "general",
    "idiom",
    "other_person_past",
    "hypothetical",
    "fiction",
}
URGENT = ("emergency", "crisis")
MEDICINES = "medicines"
"""Presentation of the texts that ask for a dose, and of those that only mention medicines."""

MOST_SHARED = 0.25
"""Share of the shorter text's runs of five words that two texts may have in common."""


def read(split: str) -> list[Text]:
    lines = FILES[split].read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


DATA = {split: read(split) for split in SPLITS}
EVERY = [text for split in SPLITS for text in DATA[split]]


def is_urgent(text: Text) -> bool:
    return text["expect"] in URGENT


def is_counterpart(text: Text) -> bool:
    """Whether a harmless text is one that mentions medicines without asking for a dose."""
    return text["expect"] == "none" and text["presentation"] == MEDICINES


def is_negative(text: Text) -> bool:
    return text["expect"] == "none" and not is_counterpart(text)


def presentations(texts: Iterable[Text]) -> set[str]:
    return {text["presentation"] for text in texts}


def words(text: Text) -> list[str]:
    """Words without case and punctuation; of Chinese, which has no spaces, the characters."""
    kept = "".join(
        " " if unicodedata.category(character)[0] in "PS" else character
        for character in text["text"].casefold()
    )
    return list("".join(kept.split())) if text["language"] == "zh" else kept.split()


def runs_of_five(text: Text) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[start : start + 5]) for start in range(max(1, len(found) - 4))}


def is_long(text: Text) -> bool:
    if text["language"] == "zh":
        return len("".join(text["text"].split())) > 45
    return len(text["text"].split()) > 25


def faults(text: Text) -> list[str]:
    """What is wrong with a line's fields, without a word of its text."""
    fields = {*FIELDS, "kind"} if text["expect"] == "none" else {*FIELDS}
    return [
        *sorted((set(text) - {"note"}) ^ fields),
        *(field for field, kind in FIELDS.items() if type(text[field]) is not kind),
        *(field for field, allowed in VALUES.items() if text[field] not in allowed),
        *(["kind"] if text.get("kind") not in {*KINDS, None} else []),
        *(["length"] if text["length"] != ("long" if is_long(text) else "short") else []),
        *(["text"] if not text["text"] or text["text"] != text["text"].strip() else []),
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_every_line_has_the_fields_the_card_names(split: str) -> None:
    assert {text["id"]: faults(text) for text in DATA[split] if faults(text)} == {}


@pytest.mark.parametrize("split", SPLITS)
def test_ids_name_their_split_and_are_unique(split: str) -> None:
    ids = Counter(text["id"] for text in DATA[split])
    assert all(count == 1 for count in ids.values())
    assert all(re.fullmatch(rf"{split}-[a-z-]+-\d\d", one) for one in ids)


@pytest.mark.parametrize(
    ("split", "urgent", "negatives", "dose", "counterparts"),
    [("test", 220, 320, 30, 30), ("dev", 200, 300, 30, 30)],
)
def test_there_is_enough_english(
    split: str, urgent: int, negatives: int, dose: int, counterparts: int
) -> None:
    english = [text for text in DATA[split] if text["language"] == "en"]
    assert sum(map(is_urgent, english)) >= urgent
    assert sum(map(is_negative, english)) >= negatives
    assert sum(text["expect"] == "dose" for text in english) >= dose
    assert sum(map(is_counterpart, english)) >= counterparts


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", sorted(VALUES["language"] - {"en"}))
def test_there_is_enough_of_each_other_language(split: str, language: str) -> None:
    texts = [text for text in DATA[split] if text["language"] == language]
    assert sum(map(is_urgent, texts)) >= 12
    assert sum(map(is_negative, texts)) >= 8


def test_no_text_comes_twice_in_either_split() -> None:
    seen = defaultdict(list)
    for text in EVERY:
        seen[" ".join(words(text))].append(text["id"])
    assert [ids for ids in seen.values() if len(ids) > 1] == []


def test_no_two_texts_share_much_of_their_wording() -> None:
    runs = {text["id"]: runs_of_five(text) for text in EVERY}
    holders = defaultdict(list)
    for one, its_runs in runs.items():
        for run in its_runs:
            holders[run].append(one)
    shared = Counter(pair for ids in holders.values() for pair in combinations(sorted(ids), 2))
    alike = [
        pair
        for pair, count in shared.items()
        if count > MOST_SHARED * min(len(runs[one]) for one in pair)
    ]
    assert alike == []


def test_no_training_text_is_near_one_of_the_test_split() -> None:
    lines = [line for file in TRAINING for line in file.read_text(encoding="utf-8").splitlines()]
    training = [json.loads(line) for line in lines]
    for language in VALUES["language"]:
        texts = [text for text in training if text["language"] == language]
        assert sum(map(is_urgent, texts)) >= 900, language
        assert sum(text["expect"] == "none" for text in texts) >= 900, language
    assert len({text["id"] for text in training}) == len({text["text"] for text in training})
    holders = defaultdict(set)
    for text in DATA["test"]:
        for run in runs_of_five(text):
            holders[run].add(text["id"])
    for text in training:
        runs = runs_of_five(text)
        shared = Counter(one for run in runs for one in holders.get(run, ()))
        assert max(shared.values(), default=0) <= MOST_SHARED * len(runs), text["id"]


def test_held_out_presentations_are_a_third_and_only_in_the_test_split() -> None:
    held_out = presentations(text for text in DATA["test"] if text["held_out_presentation"])
    urgent = presentations(filter(is_urgent, DATA["test"]))
    assert held_out < urgent
    assert 0.3 <= len(held_out) / len(urgent) <= 0.4
    assert [text["id"] for text in DATA["dev"] if text["presentation"] in held_out] == []
    assert [
        text["id"]
        for text in EVERY
        if text["held_out_presentation"] != (text["presentation"] in held_out)
    ] == []


def test_every_presentation_has_urgent_texts_and_harmless_neighbours() -> None:
    urgent = presentations(filter(is_urgent, DATA["test"]))
    held_out = presentations(text for text in DATA["test"] if text["held_out_presentation"])
    assert len(urgent) >= 40
    for split, covered in (("test", urgent), ("dev", urgent - held_out)):
        english = [text for text in DATA[split] if text["language"] == "en"]
        alarms = Counter(text["presentation"] for text in english if is_urgent(text))
        harmless = Counter(text["presentation"] for text in english if is_negative(text))
        assert set(alarms) == covered, split
        assert min(alarms.values()) >= 4, (split, alarms.most_common()[-1])
        assert min(harmless[one] for one in covered) >= 4, split


def test_the_card_counts_what_is_there() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| ([a-z-]+( \*)?) \|((?: \d+ \|){4})$", re.MULTILINE)
    written = {name: re.findall(r"\d+", counts) for name, _, counts in row.findall(card)}
    counts: dict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
    for split in SPLITS:
        for text in DATA[split]:
            if text["language"] == "en":
                name = text["presentation"] + " *" * text["held_out_presentation"]
                counts[name][split, text["expect"] != "none"] += 1
    columns = [(split, urgent) for split in SPLITS for urgent in (True, False)]
    assert written == {
        name: [str(count[column]) for column in columns] for name, count in counts.items()
    }
