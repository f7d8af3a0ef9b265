"""Texts that say nearly the same: MinHash signatures, and groups of like ones.

The share of equal values in two signatures estimates the Jaccard similarity of the texts' sets of
three-word shingles (Broder 1997, "On the resemblance and containment of documents"), with a
standard error of sqrt(s (1 - s) / 128): 0.035 at s = 0.8. A signature takes 512 bytes and bands of
it are compared by sorting, so 100,000 texts need 51 MB and no index; datasketch's index of them
would take 340 MB more.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Signatures: TypeAlias = NDArray[np.uint32]
"""One row of 128 values a text."""

_VALUES = 128
_SHINGLE = 3
# Bands are so many values wide that two texts at the threshold share one this often, at least.
_RECALL = 0.99
# In a band that very many texts share, each is compared with so many that come next.
_NEIGHBOURS = 1000

_WORD = re.compile(r"\w+")
_random = np.random.RandomState(20230324)  # its stream is frozen, so signatures are too
_FACTORS = _random.randint(0, 2**63, _VALUES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _random.randint(0, 2**63, _VALUES, dtype=np.uint64)
_MIXERS = _random.randint(0, 2**63, _VALUES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


class SignatureList:
    """Signatures of texts, in the order in which they were added."""

    def __init__(self) -> None:
        self._values = array("I")

    def add(self, text: str) -> None:
        """Compute and keep the signature of a text; case and punctuation don't matter."""
        words = _WORD.findall(text.lower())
        last = max(1, len(words) - _SHINGLE + 1)
        shingles = {" ".join(words[i : i + _SHINGLE]) for i in range(last)}
        self._values.frombytes(_signature(shingles).tobytes())

    def matrix(self) -> Signatures:
        """All signatures, a view of what is kept."""
        return np.frombuffer(self._values, dtype=np.uint32).reshape(-1, _VALUES)


def groups(signatures: Signatures, threshold: float) -> NDArray[np.int64]:
    """For each text the first text of its group; like texts, and those like them, are a group.

    Two texts are alike when their estimated similarity is at least ``threshold``.
    """
    firsts = np.arange(len(signatures))
    # Equal signatures first: a text that stands there ten thousand times is compared once.
    for members in _runs(_keys(signatures, slice(None)), firsts):
        firsts[members] = members[0]
    width = _width(threshold)
    for start in range(0, _VALUES - width + 1, width):
        distinct = np.flatnonzero(firsts == np.arange(len(firsts)))
        keys = _keys(signatures[distinct], slice(start, start + width))
        for members in _runs(keys, distinct):
            _join(signatures, members, firsts, threshold)
    return _resolved(firsts)


def merge(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups in which all texts are together that are so in either of two groupings."""
    firsts = one.copy()
    for text, first in enumerate(other):
        _union(firsts, text, int(first))
    return _resolved(firsts)


def _signature(shingles: Iterable[str]) -> Signatures:
    """The least of each of 128 hashes over the shingles.

    Multiply-shift (Dietzfelbinger 1996): the upper half of ``a x + b`` modulo 2**64 is strongly
    universal for 32-bit ``x``.
    """
    crc = np.fromiter((zlib.crc32(s.encode("utf-8", "replace")) for s in shingles), np.uint64)
    hashes = (crc[:, None] * _FACTORS + _TERMS) >> np.uint64(32)
    least: Signatures = hashes.min(axis=0).astype(np.uint32)
    return least


def _width(threshold: float) -> int:
    """The widest band with which texts at the threshold are still found."""
    for width in range(32, 1, -1):
        if 1 - (1 - threshold**width) ** (_VALUES // width) >= _RECALL:
            return width
    return 1


def _keys(signatures: Signatures, band: slice) -> NDArray[np.uint64]:
    """One number for the values of a band: different values share one once in 2**64."""
    mixed = np.zeros(len(signatures), dtype=np.uint64)
    for column in range(*band.indices(_VALUES)):
        mixed += (signatures[:, column].astype(np.uint64) + np.uint64(1)) * _MIXERS[column]
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _runs(keys: NDArray[np.uint64], texts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Texts that share a key, in order, wherever there are two or more."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.append(0, cuts), np.append(cuts, len(order))
    for run in np.flatnonzero(ends - starts > 1):
        yield texts[order[starts[run] : ends[run]]]


def _join(
    signatures: Signatures, members: NDArray[np.int64], firsts: NDArray[np.int64], threshold: float
) -> None:
    """Put those of a band's members that are really alike into one group."""
    for place, member in enumerate(members[:-1]):
        later = members[place + 1 : place + 1 + _NEIGHBOURS]
        later = later[firsts[later] != firsts[member]]
        same = (signatures[later] == signatures[member]).mean(axis=1)
        for other in later[same >= threshold]:
            _union(firsts, int(member), int(other))


def _union(firsts: NDArray[np.int64], one: int, other: int) -> None:
    low, high = sorted((_find(firsts, one), _find(firsts, other)))
    firsts[high] = low


def _find(firsts: NDArray[np.int64], text: int) -> int:
    while firsts[text] != text:
        firsts[text] = firsts[firsts[text]]
        text = int(firsts[text])
    return text


def _resolved(firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    while not np.array_equal(firsts[firsts], firsts):
        firsts = firsts[firsts]
    return firsts
