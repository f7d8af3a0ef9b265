"""The search for many phrases at once.

Each phrase is followed from all places of the message together: the set of places it has reached
is one integer, bit ``i`` standing for "before word ``i``", and a step is a shift (Baeza-Yates and
Gonnet, "A new approach to text searching", Communications of the ACM 35, 1992). What a phrase
costs is fixed by the phrase and the length: no text can make it slow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from housecall.guard.phrases import Elements, Gap
from housecall.guard.symbols import Either, Step, Symbols, needed_in
from housecall.guard.text import Break, Text

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
    needed: frozenset[int]
    either: tuple[frozenset[int], ...]  # of each set a match has one at least
    steps: tuple[Step, ...]
    backwards: tuple[Step, ...]


class Search:
    """Finds the phrases it was made with: kind, name and a sequence that has a word.

    Gaps do not go over ``gap_stops``: "face is not drooping" is no drooping face.
    """

    def __init__(
        self, phrases: Sequence[tuple[str, str, Elements]], gap_stops: Container[str] = ()
    ) -> None:
        self._gap_stops = gap_stops
        self._symbols = Symbols()
        compiled = [self._compile(*phrase) for phrase in phrases]
        shared = Counter(symbol for _, anchors in compiled for one in anchors for symbol in one)
        self._by_symbol: defaultdict[int, list[_Phrase]] = defaultdict(list)
        for phrase, anchors in compiled:
            rarest = min(anchors, key=lambda one: sum(shared[symbol] for symbol in one))
            for symbol in rarest:
                self._by_symbol[symbol].append(phrase)

    def find(self, text: Text, near: int = -1) -> list[Hit]:
        """Where the phrases stand, in order; of those that begin together only the longest.

        ``near`` has a bit for each word that a hit may begin at. Of a phrase that stands in more
        than ``MOST_PLACES`` only the first are told, with ``flood``.
        """
        masks = self._symbols.masks(text)
        present = frozenset(masks)
        run = _Run(text, masks, self._gap_stops)
        candidates = {
            phrase: None
            for symbol in present & self._by_symbol.keys()
            for phrase in self._by_symbol[symbol]
        }
        longest: dict[tuple[int, str, str], tuple[int, bool]] = {}
        for phrase in candidates:
            if phrase.needed <= present and not any(map(present.isdisjoint, phrase.either)):
                for start, end, flood in run.spans(phrase, near):
                    key = (start, phrase.kind, phrase.name)
                    longest[key] = max(longest.get(key, (0, False)), (end, flood))
        return [
            Hit(start, end, kind, name, flood)
            for (start, kind, name), (end, flood) in sorted(longest.items())
        ]

    def _compile(
        self, kind: str, name: str, elements: Elements
    ) -> tuple[_Phrase, list[frozenset[int]]]:
        steps = self._symbols.steps(elements)
        anchors = _anchors(steps)
        either = tuple(anchor for anchor in anchors if len(anchor) > 1)
        return _Phrase(kind, name, needed_in(steps), either, steps, _reversed(steps)), anchors


class _Run:
    """Phrases followed through one text."""

    def __init__(self, text: Text, masks: dict[int, int], gap_stops: Container[str]) -> None:
        self._masks = masks
        self._present = frozenset(masks)
        self._all = (1 << len(text.words)) - 1
        self._joined = self._stops = 0
        for place, (word, before) in enumerate(zip(text.words, text.breaks, strict=True)):
            if before < Break.SENTENCE:
                self._joined |= 1 << place
            if word in gap_stops:
                self._stops |= 1 << place
        self._passable = self._joined & ~self._stops
        self._possible: dict[Either, list[tuple[Step, ...]]] = {}
        self._followed: dict[tuple[Either, int, int], tuple[int, int]] = {}

    def spans(self, phrase: _Phrase, near: int) -> Iterator[tuple[int, int, bool]]:
        """The longest match from each place, and whether there are more than were looked at."""
        starts = self._follow(phrase.steps, self._all, 0)[1]
        if not starts:
            return
        simple = len(phrase.steps) == 1 and isinstance(phrase.steps[0], int)
        starts = starts >> 1 if simple else self._back(phrase.backwards, starts, 0)[1]
        places = list(_bits(starts & near, MOST_PLACES + 1))
        flood = len(places) > MOST_PLACES
        for start in places[:MOST_PLACES]:
            end = start + 1
            if not simple:
                end = self._follow(phrase.steps, 1 << start, 0)[1].bit_length() - 1
            yield start, end, flood

    def _follow(self, steps: Sequence[Step], fresh: int, moved: int) -> tuple[int, int]:
        """Places reached: ``fresh`` before the first word of a phrase, ``moved`` after it."""
        joined, masks = self._joined, self._masks
        for step in steps:
            if isinstance(step, int):
                moved = (((moved & joined) | fresh) & masks[step]) << 1
                fresh = 0
            elif isinstance(step, Gap):
                reached = moved
                for _ in range(step.longest):
                    reached = (reached & self._passable) << 1
                    moved |= reached
            else:
                fresh, moved = self._choose(step, fresh, moved)
            if not fresh | moved:
                return 0, 0
        return fresh, moved

    def _choose(self, either: Either, fresh: int, moved: int) -> tuple[int, int]:
        """A choice, followed once from the same places: concepts stand in many phrases."""
        key = (either, fresh, moved)
        found = self._followed.get(key)
        if found is None:
            begin, masks = (moved & self._joined) | fresh, self._masks
            all_fresh = all_moved = 0
            for option in self._options(either):
                if option and type(option[0]) is int and not masks[option[0]] & begin:
                    continue  # it begins nowhere here
                one, other = self._follow(option, fresh, moved)
                all_fresh, all_moved = all_fresh | one, all_moved | other
            found = self._followed[key] = all_fresh, all_moved
        return found

    def _back(self, steps: Sequence[Step], fresh: int, moved: int) -> tuple[int, int]:
        """The same from the ends to the starts, through steps in reverse."""
        for step in steps:
            if isinstance(step, int):
                moved = (((moved & self._joined) | fresh) >> 1) & self._masks.get(step, 0)
                fresh = 0
            elif isinstance(step, Gap):
                reached = moved
                for _ in range(step.longest):
                    reached = ((reached & self._joined) >> 1) & ~self._stops
                    moved |= reached
            else:
                options = [_reversed(one) for one in self._options(step)]
                fresh, moved = _union(self._back(one, fresh, moved) for one in options)
        return fresh, moved

    def _options(self, either: Either) -> list[tuple[Step, ...]]:
        """The options of a choice whose words are in the text."""
        if either not in self._possible:
            fits = self._present.issuperset
            self._possible[either] = [s for needed, s in either.options if fits(needed)]
        return self._possible[either]


def _bits(mask: int, most: int) -> Iterator[int]:
    """The first places of a set, in order."""
    while mask and most:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
        most -= 1


def _union(reached: Iterable[tuple[int, int]]) -> tuple[int, int]:
    fresh, moved = 0, 0
    for one, other in reached:
        fresh, moved = fresh | one, moved | other
    return fresh, moved


def _reversed(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(reversed(steps))


def _anchors(steps: Iterable[Step]) -> list[frozenset[int]]:
    """Sets of symbols of which a match has at least one."""
    found: list[frozenset[int]] = []
    for step in steps:
        if isinstance(step, int):
            found.append(frozenset({step}))
        elif isinstance(step, Either):
            options = [_anchors(option) for _, option in step.options]
            if all(options):
                found.append(frozenset().union(*(min(one, key=len) for one in options)))
    return found
