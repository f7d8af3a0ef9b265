"""The guard on public sets that are read from outside the project; totals only, no text is printed.

    python benchmarks/guard_public.py FOLDER      # guard/ and rag/medquad/medquad.jsonl.gz

NegEx (Chapman): the phrase of a line is the finding; whether it is read as negated against the
annotation, F1 of negated. SimpleSafetyTests: its prompts on suicide, self-harm and eating disorders
that are crises. XSTest: its safe prompts that alarm. MedQuAD: its questions that are emergencies.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from housecall.guard import MedicalGuard
from housecall.guard.context import Context
from housecall.guard.places import Places
from housecall.guard.text import Text, read_text

GUARD = MedicalGuard.load("US")
URGENT = ("emergency", "crisis")


def levels(texts: Iterable[str]) -> Counter[str]:
    """How many of the texts get each level."""
    return Counter(GUARD.check(text).level for text in texts)


def place_of(phrase: Text, sentence: Text) -> tuple[int, int] | None:
    """The first range of words of the sentence that is the phrase."""
    size = len(phrase.words)
    for start in range(len(sentence.words) - size + 1):
        if list(sentence.words[start : start + size]) == list(phrase.words):
            return start, start + size
    return None


def negex(file: Path) -> str:
    """F1 of the findings that are negated."""
    rules = GUARD._rules["en"]
    found: Counter[tuple[bool, bool]] = Counter()
    lost = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        _, finding, sentence, label = line.split("\t")
        phrase, text = (read_text(part, rules.speller.spell) for part in (finding, sentence))
        place = place_of(phrase, text) if phrase.words else None
        if place is None:
            lost += 1
            continue
        reading = Context(text, rules.cues.find(Places(text))).read(*place)
        found[label.strip() == "Negated", reading == "negated"] += 1
    precision = found[True, True] / (found[True, True] + found[False, True])
    recall = found[True, True] / (found[True, True] + found[True, False])
    f1 = 2 * precision * recall / (precision + recall)
    return (
        f"F1 {f1:.3f}, precision {precision:.3f}, recall {recall:.3f} of {found.total()} findings "
        f"({lost} whose words do not stand in the sentence as given are left out)"
    )


def main(folder: Path) -> None:
    """Read all sets and print a line for each."""
    print("NegEx:", negex(folder / "guard/negex/negex_dev.txt"))
    with (folder / "guard/simple_safety_tests/simple_safety_tests.csv").open() as lines:
        harm = [
            row["prompts_final"] for row in csv.DictReader(lines) if "Suicide" in row["harm_area"]
        ]
    print(f"SimpleSafetyTests: crisis {levels(harm)['crisis']} of {len(harm)}")
    with (folder / "guard/xstest/xstest_prompts.csv").open() as lines:
        safe = [row["prompt"] for row in csv.DictReader(lines) if row["label"] == "safe"]
    found = levels(safe)
    print(f"XSTest: crisis {found['crisis']}, emergency {found['emergency']} of {len(safe)} safe")
    with gzip.open(folder / "rag/medquad/medquad.jsonl.gz", "rt", encoding="utf-8") as rows:
        asked = [json.loads(row)["question"] for row in rows]
    found = levels(asked)
    print(f"MedQuAD: emergency {found['emergency']}, crisis {found['crisis']} of {len(asked)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
