"""How often the guard alarms where it should, and where it should not, on labelled messages.

An alarm is level ``emergency`` or ``crisis``: both tell the user to call for help. Intervals are
Wilson's (1927) for 95 %.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from housecall.errors import DataError
from housecall.guard.base import Guard

URGENT = frozenset({"emergency", "crisis"})
_LEVELS = URGENT | {"dose", "none"}
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Case:
    """A message and the level that it should get; ``facts`` are its other fields."""

    id: str
    text: str
    expect: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``total``."""

    count: int
    total: int

    def as_dict(self) -> dict[str, Any]:
        """The share with its interval, None of nothing."""
        share = self.count / self.total if self.total else None
        return {"count": self.count, "total": self.total, "share": share, "interval": self.interval}

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval of 95 %."""
        if not self.total:
            return None
        share, spread = self.count / self.total, _Z * _Z / self.total
        middle = (share + spread / 2) / (1 + spread)
        half = _Z / (1 + spread) * math.sqrt((share * (1 - share) + spread / 4) / self.total)
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Recall (urgent messages that alarm) and false alarms (others that do), by groups."""

    recall: Mapping[str, Share]
    false_alarms: Mapping[str, Share]
    precision: Share
    missed: Sequence[Case]
    alarmed: Sequence[Case]

    def as_dict(self) -> dict[str, Any]:
        """All figures; of the mistakes the ids, so that a blind split stays blind."""
        return {
            "recall": {name: share.as_dict() for name, share in self.recall.items()},
            "false_alarms": {name: share.as_dict() for name, share in self.false_alarms.items()},
            "precision": self.precision.as_dict(),
        }


def read_cases(file: Path) -> list[Case]:
    """The labelled messages of a file. Raises DataError with file and line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read: {error}") from error
    cases = [_case(line, f"{file}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not cases:
        raise DataError(f"{file}: has no message: give a file of JSON lines with text and expect")
    return cases


def evaluate(guard: Guard, cases: Iterable[Case]) -> Evaluation:
    """Read all messages, as they are and changed."""
    recall: defaultdict[str, list[bool]] = defaultdict(list)
    false_alarms: defaultdict[str, list[bool]] = defaultdict(list)
    missed: list[Case] = []
    alarmed: list[Case] = []
    for case in cases:
        level = guard.check(case.text).level
        urgent, alarm = case.expect in URGENT, level in URGENT
        for group in _groups(case):
            (recall if urgent else false_alarms)[group].append(alarm)
        if case.expect == "dose":
            recall["level dose (level dose)"].append(level == "dose")
        elif urgent:
            recall["same level of the two"].append(level == case.expect)
        if urgent != alarm:
            (missed if urgent else alarmed).append(case)
        for name, changed in _perturbed(case):
            alarm = guard.check(changed.text).level in URGENT
            (recall if urgent else false_alarms)[f"changed: {name}"].append(alarm)
    hits = sum(recall["all"])
    return Evaluation(
        {name: Share(sum(found), len(found)) for name, found in recall.items()},
        {name: Share(sum(found), len(found)) for name, found in false_alarms.items()},
        Share(hits, hits + sum(false_alarms["all"])),
        missed,
        alarmed,
    )


def read_row(line: str, where: str) -> dict[str, Any]:
    """A line of JSON with a text. Raises DataError that names the place."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise DataError(f"{where}: needs an object with a text")
    return row


def _case(line: str, where: str) -> Case:
    row = read_row(line, where)
    expect = row.get("expect", row.get("level"))
    if expect not in _LEVELS:
        raise DataError(f"{where}: expect is {expect!r}: give one of {', '.join(sorted(_LEVELS))}")
    return Case(str(row.get("id", where)), row["text"], expect, row)


def _groups(case: Case) -> list[str]:
    facts = case.facts
    groups = ["all", f"level {case.expect}"]
    groups += [
        f"{name} {facts[name]}"
        for name in ("language", "person", "style", "length", "kind", "presentation")
        if name in facts
    ]
    if facts.get("held_out_presentation"):
        groups.append("held-out presentations")
    return groups


def _perturbed(case: Case) -> Iterable[tuple[str, Case]]:
    """The message changed by rules, each in a way that leaves the expected level."""
    if case.facts.get("language", "en") != "en":
        return
    for name, change in _CHANGES.items():
        text = change(case.text)
        if text != case.text:
            yield name, replace(case, text=text)


def _with_typos(text: str) -> str:
    """Every fourth word of five letters or more with its third and fourth letters swapped."""
    count = 0

    def swap(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        word = found.group()
        return word if count % 4 else f"{word[:2]}{word[3]}{word[2]}{word[4:]}"

    return re.sub(r"[A-Za-z]{5,}", swap, text)


def _in_third_person(text: str) -> str:
    for pattern, said in _THIRD_PERSON:
        text = re.sub(pattern, said, text, flags=re.IGNORECASE)
    return text


_THIRD_PERSON = (
    (r"\bI'?m\b|\bI am\b", "my friend is"),
    (r"\bI'?ve\b|\bI have\b", "my friend has"),
    (r"\bI'd\b", "my friend would"),
    (r"\bI\b", "my friend"),
    (r"\bmy\b(?! friend)", "her"),
    (r"\bmyself\b", "herself"),
    (r"\bme\b", "her"),
)
_CHANGES: Mapping[str, Callable[[str], str]] = {
    "typos": _with_typos,
    "something denied before": lambda text: f"No cough, no rash. {text}",
    "third person": _in_third_person,
    "played down": lambda text: f"It's probably nothing and I want no advice, but {text}",
}
