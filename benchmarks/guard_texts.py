"""The messages of a language on which its second stage is trained, all written for it.

The files train*.jsonl of tests/guard/data, the shipped development texts, the cases of
tests/guard, examples in the rule packs, and in English the first questions of the starter dialogues
(urgent if the first sentence of the answer sends to emergency care). Never test.jsonl.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PACKS = ROOT / "src/housecall/guard/packs"
STARTER = ROOT / "src/housecall/data/starter.jsonl"
DATA = (
    ROOT / "tests/guard/data/train.jsonl",
    ROOT / "tests/guard/data/train_languages.jsonl",
    ROOT / "tests/guard/data/train_crises.jsonl",
    ROOT / "tests/guard/data/train_everyday.jsonl",
    ROOT / "tests/guard/data/train_patients.jsonl",
    ROOT / "src/housecall/data/guard_dev.jsonl",
    ROOT / "tests/guard/cases.jsonl",
    ROOT / "tests/guard/cases_second_author.jsonl",
    ROOT / "tests/guard/cases_languages.jsonl",
)
SENT_AWAY = re.compile(r"\b(911|999|112|000|emergency|ambulance|ER|A&E|988|crisis line)\b")
URGENT = ("emergency", "crisis")


def rows(language: str) -> list[dict[str, Any]]:
    """The messages of a language: text, expect, presentation, and the file each is from."""
    found = []
    for file in DATA:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("language", "en") == language:
                expect = row.get("expect", row.get("level"))
                about = row.get("presentation", row.get("kind", "?"))
                found.append(_row(row["text"], expect, about, file.stem))
    for pack in sorted((PACKS / language).glob("*.yaml")):
        for rule in yaml.safe_load(pack.read_text(encoding="utf-8")).get("rules", []):
            for text in rule["examples"]["positive"]:
                found.append(_row(text, rule["level"], rule["id"], "packs"))
            if rule["level"] in URGENT:
                for text in rule["examples"]["negative"]:
                    found.append(_row(text, "none", rule["id"], "packs"))
    for line in STARTER.read_text(encoding="utf-8").splitlines() if language == "en" else ():
        row = json.loads(line)
        question, answer = (message["content"] for message in row["messages"][:2])
        if len(row["messages"]) == 2:
            first = re.split(r"(?<=[.!?]) ", answer)[0]
            expect = "emergency" if SENT_AWAY.search(first) else "none"
            found.append(_row(question, expect, row["specialty"], "starter"))
    return list({row["text"]: row for row in reversed(found)}.values())[::-1]


def _row(text: str, expect: str, presentation: str, file: str) -> dict[str, Any]:
    return {"text": text, "expect": expect, "presentation": presentation, "file": file}
