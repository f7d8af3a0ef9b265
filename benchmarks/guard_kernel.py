"""How alike the guard's training messages are: what ``guard_learned.py`` learns from."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from housecall.guard.features import features
from housecall.guard.learned import SMOOTHING

PIECES_COUNT = {"en": 0.5, "others": 1.0}
"""How much pieces of words count beside words. Halved they move recall on English held-out texts by
a tenth of a point, and misread fewer of other people's (GenMedGPT, iCliniq)."""

FUNCTION_WORDS = yaml.safe_load(
    Path(__file__).with_name("guard_function_words.yaml").read_text(encoding="utf-8")
)

COMMON = 60
"""Messages from which on a feature has a column of a matrix: rarer ones go pair by pair."""

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[np.float32]]
Whole = np.ndarray[Any, np.dtype[np.int64]]


def of_language(settings: dict[str, T], language: str) -> T:
    """What is set for a language."""
    return settings.get(language, settings["others"])


@dataclass(frozen=True)
class Block:
    """Features of one kind, each kind given the same weight in all; most are in few messages."""

    names: list[str]
    rows: Whole
    columns: Whole
    values: Array
    """Of message ``rows[i]`` and feature ``columns[i]``; divided by the root of its length."""
    importance: Array

    def gram(self, count: int) -> Array:
        """How alike each two messages are: common features as a matrix, rare ones pair by pair."""
        found = np.zeros((count, count), np.float32)
        spread = np.bincount(self.columns)
        common = (spread > COMMON)[self.columns]
        place = np.cumsum(spread > COMMON) - 1
        matrix = np.zeros((count, int((spread > COMMON).sum())), np.float32)
        matrix[self.rows[common], place[self.columns[common]]] = self.values[common]
        found += matrix @ matrix.T
        order = np.argsort(self.columns, kind="stable")
        order = order[~common[order]]
        ends = np.flatnonzero(np.diff(self.columns[order])) + 1
        for part in np.split(order, ends):
            one = self.values[part]
            found[np.ix_(self.rows[part], self.rows[part])] += np.outer(one, one)
        return found


def kind(feature: str) -> str:
    """Words and neighbours; pairs with a gap; pieces."""
    if "~" in feature:
        return "gap"
    return "piece" if feature[0] == "<" or feature[-1] == ">" or "_" in feature else "word"


def says_something(feature: str, function_words: set[str]) -> bool:
    """Whether a feature is weighed: function words alone, or in a pair with a gap, are not."""
    match kind(feature):
        case "word":
            return not function_words.issuperset(feature.split(" "))
        case "gap":
            return function_words.isdisjoint(feature.split("~"))
        case _:
            return True


def blocks(messages: list[list[str]], language: str) -> list[Block]:
    """Each feature that stands in two messages or more, weighted by how rare it is."""
    function_words = set(FUNCTION_WORDS.get(language, "").split())
    counts = [
        Counter(one for one in features(words) if says_something(one, function_words))
        for words in messages
    ]
    spread = Counter(feature for one in counts for feature in one)
    found = []
    for name in ("word", "gap", "piece"):
        names = sorted(f for f, n in spread.items() if n > 1 and kind(f) == name)
        place = {feature: number for number, feature in enumerate(names)}
        rare = np.array([math.log(1 + len(messages) / spread[f]) for f in names], np.float32)
        cells = [
            (row, place[feature], count / math.sqrt(len(messages[row]) + SMOOTHING))
            for row, one in enumerate(counts)
            for feature, count in one.items()
            if feature in place
        ]
        rows, columns, plain = map(np.array, zip(*cells, strict=True))
        values = (plain * rare[columns]).astype(np.float32)
        size = math.sqrt(float((values**2).sum()) / len(messages))
        size /= math.sqrt(of_language(PIECES_COUNT, language) if name == "piece" else 1.0)
        found.append(Block(names, rows, columns, values / size, rare / size))
    return found
