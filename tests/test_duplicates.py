"""MinHash: the estimate against the real similarity, and which texts end up in one group."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("numpy", reason="needs the extra train")

import numpy as np

from housecall.duplicates import SignatureList, groups, merge


def signatures(texts: list[str]) -> np.ndarray:
    found = SignatureList()
    for text in texts:
        found.add(text)
    return found.matrix()


def text_of(number: int, count: int = 100) -> list[str]:
    return [f"w{number}x{i}" for i in range(count)]


def similarity(one: list[str], other: list[str]) -> float:
    """The Jaccard similarity of two lists' three-word shingles, exactly."""
    first, second = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (one, other))
    return len(first & second) / len(first | second)


def changed(words: list[str], places: int, chance: random.Random) -> list[str]:
    words = list(words)
    for place in chance.sample(range(len(words)), places):
        words[place] = f"new{place}"
    return words


@pytest.mark.parametrize("places", [0, 2, 5, 10, 20, 40])
def test_the_estimate_is_near_the_real_similarity(places: int) -> None:
    chance = random.Random(places)
    errors = []
    for number in range(40):
        one = text_of(number)
        other = changed(one, places, chance)
        first, second = signatures([" ".join(one), " ".join(other)])
        errors.append((first == second).mean() - similarity(one, other))
    assert abs(np.mean(errors)) < 0.03
    assert np.max(np.abs(errors)) < 0.18  # four standard errors of one estimate


def test_the_least_of_two_signatures_is_that_of_both_texts() -> None:
    one, other = "the quick brown fox", "a slow green turtle"
    both = np.minimum(*signatures([one, other]))
    shingles = ["the quick brown", "quick brown fox", "a slow green", "slow green turtle"]
    assert (both == np.min(signatures(shingles), axis=0)).all()


def test_case_and_punctuation_do_not_matter_and_short_texts_count() -> None:
    found = signatures(["I have a fever", "i HAVE, a fever!", "fever", "Fever?", "", "..."])
    assert groups(found, 0.9).tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_groups_find_what_comparing_all_pairs_finds(threshold: float) -> None:
    chance = random.Random(7)
    texts = []
    for number in range(60):
        words = text_of(number)
        texts.append(" ".join(words))
        texts += [" ".join(changed(words, chance.randint(1, 12), chance)) for _ in range(3)]
    found = signatures(texts)
    alike = [(a, b) for b in range(len(texts)) for a in range(b)
             if (found[a] == found[b]).mean() >= threshold]  # fmt: skip
    grouped = groups(found, threshold)
    together = [grouped[a] == grouped[b] for a, b in alike]
    assert len(alike) > 10
    assert np.mean(together) > 0.99
    other = [(a, b) for a in range(240) for b in range(a) if a // 4 != b // 4]
    assert not any(grouped[a] == grouped[b] for a, b in other)


def test_a_chain_of_like_texts_is_one_group_named_by_its_first() -> None:
    words = text_of(1)
    chain = [words]
    for step in range(1, 6):
        chain.append(chain[-1][:-4] + [f"step{step}x{i}" for i in range(4)])
        chain[-1] = [f"first{step}", *chain[-1][1:]]
    texts = ["something else altogether", *(" ".join(words) for words in chain)]
    assert groups(signatures(texts), 0.75).tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_ten_thousand_equal_texts_are_one_group_at_once() -> None:
    one, other = signatures(["the same answer again", "another answer this time"])
    many = np.concatenate([np.tile(one, (10_000, 1)), np.tile(other, (10_000, 1))])
    assert np.unique(groups(many, 0.8)).tolist() == [0, 10_000]


def test_groupings_merge_to_their_common_groups() -> None:
    one, other = np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 3])
    assert merge(one, other).tolist() == [0, 0, 0, 3, 3]


def test_nothing_has_no_groups() -> None:
    assert groups(SignatureList().matrix(), 0.8).tolist() == []
