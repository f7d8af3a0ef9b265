"""Trains the guard's second stage, and says how good it is on presentations it has not seen.

    python benchmarks/guard_learned.py            # cross-validate only
    python benchmarks/guard_learned.py --write    # and write src/housecall/guard/learned.json

The data are those of ``guard_texts.py``.

Method: regularised least squares (Rifkin, Yeo and Poggio 2003) on weighed words, in the dual, so
that it takes seconds. All texts of a presentation are in one fold: a fold is tested on kinds of
emergency that its weights have no example of. Needs numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from guard_texts import ROOT, URGENT, rows

from housecall.guard import MedicalGuard
from housecall.guard.learned import SHORTEST_DOUBTED, SMOOTHING, features, words_to_weigh
from housecall.guard.text import split
from housecall.guard.weights import to_table

TARGET = ROOT / "src/housecall/guard/learned.json"
FOLDS, RIDGE, CRISIS_RIDGE = 12, 0.25, 0.25
FALSE_ALARMS = (0.02, 0.03, 0.05, 0.08)

COMMON = 60
"""Messages from which on a feature has a column of a matrix: rarer ones go pair by pair."""

Array = np.ndarray[Any, np.dtype[np.float32]]
Whole = np.ndarray[Any, np.dtype[np.int64]]


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


def blocks(messages: list[list[str]]) -> list[Block]:
    """Each feature that stands in two messages or more, weighted by how rare it is."""
    counts = [Counter(features(words)) for words in messages]
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
        found.append(Block(names, rows, columns, values / size, rare / size))
    return found


def fit(kernel: Array, labels: Array, ridge: float) -> tuple[Array, float]:
    """Weights of the messages, and the bias."""
    bias = float(labels.mean())
    return np.linalg.solve(
        kernel + ridge * np.eye(len(labels), dtype=np.float32), labels - bias
    ), bias


def folds(found: list[dict[str, Any]]) -> Array:
    """The fold of each message; a presentation is in one fold."""
    names = sorted({row["presentation"] for row in found})
    Random(7).shuffle(names)
    return np.array([names.index(row["presentation"]) % FOLDS for row in found])


def held_out(kernel: Array, labels: Array, fold: Array, ridge: float) -> Array:
    """The score of each message by weights that have not seen its presentation.

    One inverse serves all folds: what a fold's messages get without it follows from their own
    corner of the inverse (the bias is that of all).
    """
    bias = float(labels.mean())
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(labels), dtype=np.float32))
    alpha = inverse @ (labels - bias)
    scores = np.zeros(len(labels), np.float32)
    for number in range(FOLDS):
        test = fold == number
        scores[test] = labels[test] - np.linalg.solve(inverse[np.ix_(test, test)], alpha[test])
    return scores


def at(scores: Array, urgent: Array, share: float) -> tuple[float, float]:
    """Threshold and recall where this share of the harmless alarms."""
    harmless = np.sort(scores[~urgent])[::-1]
    threshold = float(harmless[int(share * len(harmless))])
    return threshold, float((scores[urgent] > threshold).mean())


def together(
    scores: Array, rules: list[str], lengths: Array, alarm_at: float, doubt_below: float
) -> Array:
    """Whether the guard alarms, with rules and the second stage."""
    believed = (scores >= doubt_below) | (lengths < SHORTEST_DOUBTED)
    crisis = np.array([level == "crisis" for level in rules])
    emergency = np.array([level == "emergency" for level in rules])
    alarms: Array = (scores >= alarm_at) | crisis | (emergency & believed)
    return alarms


def primal(parts: list[Block], alpha: Array) -> tuple[dict[str, int], float]:
    """Weights of the features as small whole numbers, and their unit."""
    weights: dict[str, float] = {}
    for part in parts:
        sums = np.bincount(part.columns, part.values * alpha[part.rows], len(part.names))
        values = sums * part.importance
        weights.update(zip(part.names, map(float, values), strict=True))
    scale = max(map(abs, weights.values())) / 127
    whole = {name: round(value / scale) for name, value in sorted(weights.items())}
    return {name: value for name, value in whole.items() if value}, scale


def main() -> None:
    """Cross-validate, print, and write when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name}")
    parser.add_argument("--alarm-at", type=float, default=0.2)
    parser.add_argument("--doubt-below", type=float, default=-0.4)
    chosen = parser.parse_args()
    found = rows()
    messages = [words_to_weigh(split(row["text"]))[0] for row in found]
    urgent = np.array([row["expect"] in URGENT for row in found])
    crisis = np.array([row["expect"] == "crisis" for row in found])
    new = np.array([row["file"] == "train" for row in found])
    labels = np.where(urgent, 1, -1).astype(np.float32)
    parts = blocks(messages)
    kernel = sum((part.gram(len(found)) for part in parts), np.zeros(1, np.float32))
    scores = held_out(kernel, labels, folds(found), RIDGE)
    lengths = np.array([len(words) for words in messages])
    guard = MedicalGuard.load(learned=False)
    rules = [guard.check(row["text"]).level for row in found]

    print(f"{len(found)} messages, {urgent.sum()} urgent; presentations held out in turn")
    for name, some in (("all", np.ones_like(new)), ("train.jsonl only", new)):
        shares = "  ".join(
            f"{share:.0%}: {at(scores[some], urgent[some], share)[1]:.1%}" for share in FALSE_ALARMS
        )
        print(f"second stage alone, {name:18} recall at false alarms of {shares}")
    dev = np.array([row["file"] == "guard_dev" for row in found])
    for name, test in (("all others to dev", dev), ("all others to train", new)):
        alpha, bias = fit(kernel[np.ix_(~test, ~test)], labels[~test], RIDGE)
        other = kernel[np.ix_(test, ~test)] @ alpha + bias
        shares = "  ".join(f"{s:.0%}: {at(other, urgent[test], s)[1]:.1%}" for s in FALSE_ALARMS)
        print(f"one author's texts to the other's, {name}: recall at {shares}")
    print("with the rules, on train.jsonl (some rules were narrowed by it,")
    print("and the guard withdraws a little less):")
    for alarm_at in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        for doubt_below in (-9, -0.55, -0.4, -0.3, -0.2, -0.1):
            alarms = together(scores, rules, lengths, alarm_at, doubt_below)
            recall, false = alarms[new & urgent].mean(), alarms[new & ~urgent].mean()
            where = f"  alarm {alarm_at:.2f} doubt {doubt_below:5.1f}"
            print(f"{where}: recall {recall:.1%}, false alarms {false:.1%}")
    if chosen.write:
        alpha, bias = fit(kernel, labels, RIDGE)
        weights, scale = primal(parts, alpha)
        kind_labels = np.where(crisis, 1, -1).astype(np.float32)[urgent]
        alpha, crisis_bias = fit(kernel[np.ix_(urgent, urgent)], kind_labels, CRISIS_RIDGE)
        full = np.zeros(len(found), np.float32)
        full[urgent] = alpha
        crisis_weights, crisis_scale = primal(parts, full)
        told = "\n".join(f"{row['expect']} {row['text']}" for row in found)
        digest = hashlib.sha256(told.encode()).hexdigest()
        model = {
            "trained_on": digest, "scale": scale, "bias": bias, "crisis_scale": crisis_scale,
            "crisis_bias": crisis_bias, "alarm_at": chosen.alarm_at,
            "doubt_below": chosen.doubt_below,
            "weights": to_table(weights).model_dump(),
            "crisis_weights": to_table(crisis_weights).model_dump(),
        }  # fmt: skip
        TARGET.write_text(json.dumps(model, separators=(",", ":")) + "\n", encoding="utf-8")
        size = TARGET.stat().st_size
        print(f"wrote {TARGET.name}: {len(weights)} + {len(crisis_weights)} weights, {size} bytes")


if __name__ == "__main__":
    main()
