"""Trains the guard's second stage, and says how good it is on presentations it has not seen.

    python benchmarks/guard_learned.py fr            # cross-validate
    python benchmarks/guard_learned.py fr --write    # or write guard/packs/fr/learned.json

The data are those of ``guard_texts.py``.

Method: regularised least squares (Rifkin, Yeo and Poggio 2003) on weighed words, in the dual. Folds
are made twice: with all texts of a presentation in one, so that a fold is tested on kinds of
emergency that its weights have no example of, and at random. Needs numpy and torch; English takes
twelve minutes and 17 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from guard_kernel import Array, Block, blocks, kind, of_language
from guard_texts import PACKS, URGENT, rows

from housecall.guard import MedicalGuard
from housecall.guard.features import PlayedDown, words_to_weigh
from housecall.guard.learned import LONGEST_CRISIS, SHORTEST_ALARM
from housecall.guard.packs import Language, read_yaml
from housecall.guard.rule_sets import WEIGHTS
from housecall.guard.text import split
from housecall.guard.weights import to_table

LANGUAGES = sorted(one.name for one in PACKS.iterdir() if one.is_dir())
FOLDS, RIDGE = 12, 1.0
FALSE_ALARMS = (0.02, 0.05, 0.06, 0.08, 0.12)

ALARMING_SHARE = {"en": 0.06, "others": 0.08}
"""The guard alarms from the sum on that this share of the harmless training texts reach by weights
that have not seen them: they are hard on purpose. Ordinary ones (train_everyday.jsonl) don't set
it; about a third as many of them alarm."""

CRISIS_ALARM_AT = {"en": 0.07, "others": 0.0}
"""The crisis sum tells crises from all other messages; from this on it alarms by itself. In English
XSTest's total decided: from 0 on 6 of its 250 safe prompts were called crises, from .07 on 4; held
out, 65 % of the sideways crises are found for 69 %, and 8.6 % of their harmless neighbours alarm
for 9.5 %."""

CRISIS_FROM = -0.4
"""From this crisis sum on an alarm is a crisis, which is right most often, held out."""

RULE_WEIGHTS = {
    "en": {"emergency": 0.5, "crisis": 0.9, "lowered": -0.1},
    "others": {"emergency": 0.2, "crisis": 0.4, "lowered": -0.1},
}
"""What an alarm of the rules adds to the score. In English .25 for an emergency is better by half a
point on texts of this kind, but finds fewer of the red flags in GenMedGPT's lists of symptoms. A
crisis of the rules is withdrawn only where the sum is far below: .9 withdraws none of 162 true ones
and 10 of 52 false ones (a fifth of the texts, held out), .8 none and 13, 1.0 none and 5 at a price
of half a point of recall; between .8 and .9 SimpleSafetyTests' total decided (17 and 18 of 20). In
the other languages, whose rules are less precise, heavier ones give worse curves. ``lowered`` (a
finding read as denied, past or asked) moves the curves by less than .2 points; it is for such as "I
have no chest pain"."""

SHORTEST_DOUBTED = {"en": 10, "others": 6}
"""Words of a message from which on an alarm of the rules may be withdrawn: fewer say too little."""

LIGHTEST = {"word": 0.02, "gap": 0.03, "piece": 0.02}
"""Weights up to this are left out, in the crisis sum up to half as much again. Measured in English
with 19,783 texts, on a fifth that the weights had not seen, at 7 % false alarms: all 257,000 find
91.9 %, these 127,000 91.6 % with fewer alarms on other people's texts, those from twice this on
88.6 %."""


def fit(kernel: Array, labels: Array, ridge: float) -> tuple[Array, float]:
    """Weights of the messages, and the bias."""
    bias = float(labels.mean())
    alpha = torch.cholesky_solve(torch.from_numpy(labels - bias)[:, None], _factor(kernel, ridge))
    return alpha[:, 0].numpy(), bias


def _factor(kernel: Array, ridge: float) -> torch.Tensor:
    return torch.linalg.cholesky(
        torch.from_numpy(kernel + ridge * np.eye(len(kernel), dtype=np.float32))
    )


def folds(found: list[dict[str, Any]]) -> Array:
    """The fold of each message; a presentation is in one fold."""
    names = sorted({row["presentation"] for row in found})
    Random(7).shuffle(names)
    return np.array([names.index(row["presentation"]) % FOLDS for row in found])


def held_out(kernel: Array, labels: Array, fold: Array, ridge: float) -> Array:
    """The score of each message by weights that have not seen its fold.

    One inverse serves all folds: what a fold's messages get without it follows from their own
    corner of the inverse (the bias is that of all).
    """
    bias = float(labels.mean())
    inverse = torch.cholesky_inverse(_factor(kernel, ridge)).numpy()
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


def together(scores: Array, rules: list[str], lengths: Array, language: str) -> Array:
    """The scores with what the rules found as one more weight, as the guard adds them."""
    weights = of_language(RULE_WEIGHTS, language)
    bonus = np.array([weights.get(level, 0.0) for level in rules], np.float32)
    found = scores + bonus
    found[(bonus > 0) & (lengths < of_language(SHORTEST_DOUBTED, language))] = 9.0
    found[(bonus == 0) & (lengths < SHORTEST_ALARM)] = -9.0
    return found


def primal(parts: list[Block], alpha: Array, lightest: float) -> tuple[dict[str, int], float]:
    """Weights of the features as small whole numbers, and their unit.

    Those up to ``lightest`` times LIGHTEST are left out.
    """
    weights: dict[str, float] = {}
    for part in parts:
        sums = np.bincount(part.columns, part.values * alpha[part.rows], len(part.names))
        values = sums * part.importance
        weights.update(zip(part.names, map(float, values), strict=True))
    scale = max(map(abs, weights.values())) / 127
    heavy = {n: w for n, w in sorted(weights.items()) if abs(w) > lightest * LIGHTEST[kind(n)]}
    return {name: round(weight / scale) for name, weight in heavy.items()}, scale


@dataclass(frozen=True)
class Data:
    """The messages and what is known of them."""

    rows: list[dict[str, Any]]
    lengths: Array
    urgent: Array
    train: Array
    """Those of train.jsonl and train_languages.jsonl, which set the threshold."""
    general: Array
    """All but train_crises.jsonl, from which only the crisis sum learns."""
    labels: Array
    crises: Array
    parts: list[Block]
    kernel: Array


def load(language: str) -> Data:
    """Read all messages of a language and weigh how alike each two of them are."""
    found = rows(language)
    played_down = PlayedDown(read_yaml(PACKS / language / "language.yaml", Language).played_down)
    messages = [words_to_weigh(split(row["text"]), played_down)[0] for row in found]
    urgent = np.array([row["expect"] in URGENT for row in found])
    parts = blocks(messages, language)
    return Data(
        rows=found,
        lengths=np.array([len(words) for words in messages]),
        urgent=urgent,
        train=np.array([row["file"] in ("train", "train_languages") for row in found]),
        general=np.array([row["file"] != "train_crises" for row in found]),
        labels=np.where(urgent, 1, -1).astype(np.float32),
        crises=np.where([row["expect"] == "crisis" for row in found], 1, -1).astype(np.float32),
        parts=parts,
        kernel=sum((part.gram(len(found)) for part in parts), np.zeros(1, np.float32)),
    )


def levels(data: Data) -> list[str]:
    """What the rules alone make of the messages."""
    guard = MedicalGuard.load(learned=False)
    return [guard.check(row["text"]).level for row in data.rows]


def drawn(data: Data) -> Array:
    """The fold of each message, drawn at random."""
    return np.random.default_rng(3).integers(0, FOLDS, len(data.rows))


@dataclass(frozen=True)
class Scores:
    """What messages get by weights that have not seen them."""

    alone: Array
    """The sum for all alarms."""
    rules: Array
    """With what the rules found."""
    crisis: Array
    """The crisis sum."""
    both: Array
    """``rules``, and a high number where the crisis sum alarms by itself."""


def score(data: Data, language: str, fold: Array) -> Scores:
    """The scores of all messages; the sum for all alarms is learned from the general ones."""
    some, others = data.general, ~data.general
    kernel = data.kernel[np.ix_(some, some)]
    alone = np.zeros(len(data.rows), np.float32)
    alone[some] = held_out(kernel, data.labels[some], fold[some], RIDGE)
    if others.any():
        alpha, bias = fit(kernel, data.labels[some], RIDGE)
        alone[others] = data.kernel[np.ix_(others, some)] @ alpha + bias
    crisis = held_out(data.kernel, data.crises, fold, RIDGE)
    rules = together(alone, levels(data), data.lengths, language)
    fits = (data.lengths >= SHORTEST_ALARM) & (data.lengths <= LONGEST_CRISIS)
    by_itself = (crisis >= of_language(CRISIS_ALARM_AT, language)) & fits
    return Scores(alone, rules, crisis, np.where(by_itself, np.float32(9.0), rules))


def cross_validate(data: Data, language: str) -> None:
    """Print recall at given shares of false alarms, by weights that have not seen the message."""
    print(f"{len(data.rows)} messages, {data.urgent.sum()} urgent. Recall on the training texts")
    print("at shares of false alarms (and from which sum on); the rules saw some of them before")
    some, urgent = data.train, data.urgent[data.train]
    for held, fold in (
        ("presentations held out", folds(data.rows)),
        ("drawn at random", drawn(data)),
    ):
        scores = score(data, language, fold)
        for name, found in (
            ("one sum alone", scores.alone),
            ("and the rules", scores.rules),
            ("and the crisis sum", scores.both),
        ):
            told = (at(found[some], urgent, share) for share in FALSE_ALARMS)
            line = "  ".join(
                f"{share:.0%}: {recall:.1%} ({threshold:+.2f})"
                for share, (threshold, recall) in zip(FALSE_ALARMS, told, strict=True)
            )
            print(f"  {held}, {name:18}  {line}")


def write(data: Data, language: str) -> None:
    """Write the weights of all messages."""
    target = PACKS / language / WEIGHTS
    scores = score(data, language, drawn(data))
    share = of_language(ALARMING_SHARE, language)
    alarm_at, recall = at(scores.both[data.train], data.urgent[data.train], share)
    print(f"{share:.0%} false alarms from {alarm_at:.2f} on: recall {recall:.1%}")
    for file in ("train_crises", "train_everyday", "train_patients"):
        some = np.array([row["file"] == file for row in data.rows])
        if some.any():
            alarms, urgent = (scores.both >= alarm_at)[some], data.urgent[some]
            recall, false = alarms[urgent].mean(), alarms[~urgent].mean()
            print(f"{file}.jsonl: recall {recall:.1%}, false alarms {false:.1%}")
    named = (scores.crisis >= CRISIS_FROM) == (data.crises > 0)
    print(f"level of urgent messages right: {named[data.urgent].mean():.1%}; all held out")
    alpha, bias = fit(
        data.kernel[np.ix_(data.general, data.general)], data.labels[data.general], RIDGE
    )
    full = np.zeros(len(data.rows), np.float32)
    full[data.general] = alpha
    weights, scale = primal(data.parts, full, 1.0)
    alpha, crisis_bias = fit(data.kernel, data.crises, RIDGE)
    crisis_weights, crisis_scale = primal(data.parts, alpha, 1.5)
    told = "\n".join(f"{row['expect']} {row['text']}" for row in data.rows)
    model = {
        "trained_on": hashlib.sha256(told.encode()).hexdigest(), "scale": scale, "bias": bias,
        "crisis_scale": crisis_scale, "crisis_bias": crisis_bias,
        "crisis_from": CRISIS_FROM,
        "crisis_alarm_at": of_language(CRISIS_ALARM_AT, language),
        "alarm_at": round(alarm_at, 3),
        "rule_weights": of_language(RULE_WEIGHTS, language),
        "shortest_doubted": of_language(SHORTEST_DOUBTED, language),
        "weights": to_table(weights).model_dump(),
        "crisis_weights": to_table(crisis_weights).model_dump(),
    }  # fmt: skip
    target.write_text(
        json.dumps(model, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    size = target.stat().st_size
    print(f"wrote {language}: {len(weights)} + {len(crisis_weights)} weights, {size} bytes")


def main() -> None:
    """Cross-validate and print, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", nargs="?", default="en", choices=LANGUAGES)
    parser.add_argument("--write", action="store_true", help=f"write {WEIGHTS}")
    chosen = parser.parse_args()
    data = load(chosen.language)
    if chosen.write:
        write(data, chosen.language)
    else:
        cross_validate(data, chosen.language)


if __name__ == "__main__":
    main()
