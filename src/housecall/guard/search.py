"""The search for many phrases at once: which ones can stand in a text, and where they do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple

from housecall.guard.follow import EVERYWHERE, Follower, Spans
from housecall.guard.phrases import Elements
from housecall.guard.places import Places
from housecall.guard.symbols import ANYTHING, Either, Step, Symbols, key_of

_MOST_REMEMBERED = 20_000

MOST_PLACES = 64
"""Places of one phrase that are looked at; see ``Search.find``."""


class Hit(NamedTuple):
    """A phrase of ``kind`` and ``name``, from word ``start`` up to, not including, ``end``.

    ``flood``: the phrase stands in more places than were looked at.
    """

    start: int
    end: int
    kind: str
    name: str
    flood: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Phrase:
    kind: str
    name: str
    key: int  # a symbol that it can't do without, beside those it is looked up by
    steps: tuple[Step, ...]


class Search:
    """Finds the phrases it was made with: kind, name and a sequence that has a word.

    Gaps do not go over ``gap_stops``: "face is not drooping" is no drooping face.
    """

    def __init__(
        self, phrases: Sequence[tuple[str, str, Elements]], gap_stops: Collection[str] = ()
    ) -> None:
        self._gap_stops = gap_stops
        self._symbols = Symbols()
        steps = [self._symbols.steps(elements) for _, _, elements in phrases]
        anchors = [_anchors(one) for one in steps]
        shared = Counter(symbol for sets in anchors for one in sets for symbol in one)
        self._by_symbol: defaultdict[int, list[_Phrase]] = defaultdict(list)
        for (kind, name, _), one, sets in zip(phrases, steps, anchors, strict=True):
            rarest = min(sets, key=lambda one: sum(shared[symbol] for symbol in one))
            phrase = _Phrase(kind, name, key_of(one, besides=rarest), one)
            for symbol in rarest:
                self._by_symbol[symbol].append(phrase)
        self._remembered: dict[str, tuple[tuple[int, ...], frozenset[_Phrase]]] = {}

    def find(self, places: Places, near: int = EVERYWHERE) -> list[Hit]:
        """Where the phrases stand, in order; of those that begin together only the longest.

        ``near`` has the places that a hit may begin at. Of a phrase that stands in more than
        ``MOST_PLACES`` only the first are told, with ``flood``.
        """
        masks = [0] * len(self._symbols)
        masks[ANYTHING] = EVERYWHERE
        candidates: set[_Phrase] = set()
        for word, mask in places.by_word.items():
            symbols, phrases = self._remembered.get(word) or self._look_up(word)
            for symbol in symbols:
                masks[symbol] |= mask
            candidates |= phrases
        stops = reduce(or_, (places.by_word.get(word, 0) for word in self._gap_stops), 0)
        follower = Follower(masks, places.taken & ~stops)
        word_at = places.word_at
        longest: dict[tuple[int, str, str], tuple[int, bool]] = {}
        for phrase in candidates:
            if masks[phrase.key] and (spans := follower.spans(phrase.steps, near)):
                for start, end, flood in _longest(spans):
                    key = (word_at[start], phrase.kind, phrase.name)
                    last = (word_at[end - 1] + 1, flood)
                    longest[key] = max(longest.get(key, last), last)
        return [
            Hit(start, end, kind, name, flood)
            for (start, kind, name), (end, flood) in sorted(longest.items())
        ]

    def _look_up(self, word: str) -> tuple[tuple[int, ...], frozenset[_Phrase]]:
        """The symbols of a word, and the phrases to be looked for where it stands."""
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        symbols = self._symbols.of(word)
        phrases = frozenset(p for symbol in symbols for p in self._by_symbol.get(symbol, ()))
        self._remembered[word] = symbols, phrases
        return symbols, phrases


def _longest(spans: Spans) -> list[tuple[int, int, bool]]:
    """The longest span from each place, and whether there are more than are looked at."""
    starts = reduce(or_, spans.values())
    flood = starts.bit_count() > MOST_PLACES
    if flood:
        starts = _first(starts, MOST_PLACES)
    found = []
    for length in sorted(spans, reverse=True):
        here = spans[length] & starts
        starts ^= here
        while here:
            start = (here & -here).bit_length() - 1
            found.append((start, start + length, flood))
            here &= here - 1
    return found


def _first(places: int, count: int) -> int:
    """The first places of a set."""
    others = places
    for _ in range(count):
        others &= others - 1
    return places ^ others


def _anchors(steps: Iterable[Step]) -> list[frozenset[int]]:
    """Sets of symbols of which a match has at least one."""
    found: list[frozenset[int]] = []
    for step in steps:
        if isinstance(step, int):
            found.append(frozenset({step}))
        elif isinstance(step, Either):
            options = [_anchors(option) for option in step.options()]
            if all(options):
                found.append(frozenset().union(*map(_rarest, options)))
    return found


def _rarest(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    """The smallest; of sets of one symbol that of the rarest, see ``key_of``."""
    return min(sets, key=lambda one: (len(one), -max(one)))
