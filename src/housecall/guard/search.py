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

from housecall.guard.phrases import Choice, Element, Elements, Gap, Number, Word
from housecall.guard.text import Break, Text

MOST_PLACES = 64
"""Places of one phrase that are looked at; see ``Search.find``."""

_MOST_REMEMBERED = 20_000


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
class _Either:
    """A choice between sequences, each with the symbols it can't do without."""

    options: tuple[tuple[frozenset[int], tuple[_Step, ...]], ...]


_Step = int | Gap | _Either


@dataclass(frozen=True, slots=True, eq=False)
class _Phrase:
    kind: str
    name: str
    needed: frozenset[int]
    either: tuple[frozenset[int], ...]  # of each set a match has one at least
    steps: tuple[_Step, ...]
    backwards: tuple[_Step, ...]


class Search:
    """Finds the phrases it was made with: kind, name and a sequence that has a word.

    Gaps do not go over ``gap_stops``: "face is not drooping" is no drooping face.
    """

    def __init__(
        self, phrases: Sequence[tuple[str, str, Elements]], gap_stops: Container[str] = ()
    ) -> None:
        self._gap_stops = gap_stops
        self._symbols = _Symbols()
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
        return _Phrase(kind, name, _needed(steps), either, steps, _reversed(steps)), anchors


class _Symbols:
    """Numbers for the words of the phrases: one for each set of forms."""

    def __init__(self) -> None:
        self._numbers: dict[Element, int] = {}
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        self._by_prefix: defaultdict[str, list[int]] = defaultdict(list)
        self._ranges: list[tuple[Number, int]] = []
        self._choices: dict[int, tuple[Choice, _Either]] = {}
        self._prefix_lengths: list[int] = []
        self._remembered: dict[str, tuple[int, ...]] = {}

    def steps(self, elements: Elements) -> tuple[_Step, ...]:
        """The elements with numbers for words."""
        return tuple(self._step(element) for element in elements)

    def masks(self, text: Text) -> dict[int, int]:
        """For each symbol in the text the places it stands at."""
        places: dict[str, int] = {}
        for place, word in enumerate(text.words):
            places[word] = places.get(word, 0) | 1 << place
        masks: dict[int, int] = {}
        for word, mask in places.items():
            for symbol in self._of(word):
                masks[symbol] = masks.get(symbol, 0) | mask
        return masks

    def _of(self, word: str) -> tuple[int, ...]:
        found = self._remembered.get(word)
        if found is None:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[word] = tuple(self._look_up(word))
        return found

    def _look_up(self, word: str) -> Iterator[int]:
        yield from self._by_word.get(word, ())
        for length in self._prefix_lengths:
            if length > len(word):
                break
            yield from self._by_prefix.get(word[:length], ())
        if word[:1].isdigit():
            yield from (symbol for number, symbol in self._ranges if number.matches(word))

    def _step(self, element: Element) -> _Step:
        if isinstance(element, Gap):
            return element
        if isinstance(element, Choice):
            return self._either(element)
        if element not in self._numbers:
            self._add(element, len(self._numbers))
        return self._numbers[element]

    def _add(self, element: Word | Number, symbol: int) -> None:
        self._numbers[element] = symbol
        if isinstance(element, Number):
            self._ranges.append((element, symbol))
            return
        for word in element.words:
            self._by_word[word].append(symbol)
        for prefix in element.prefixes:
            self._by_prefix[prefix].append(symbol)
            self._prefix_lengths = sorted({*self._prefix_lengths, len(prefix)})

    def _either(self, choice: Choice) -> _Either:
        """The same choice gives the same object, so that a concept is looked up once a message."""
        if id(choice) not in self._choices:
            options = [self.steps(option) for option in choice.options]
            either = _Either(tuple((_needed(steps), steps) for steps in options))
            self._choices[id(choice)] = choice, either  # the choice is kept: its id stays taken
        return self._choices[id(choice)][1]


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
        self._possible: dict[_Either, list[tuple[_Step, ...]]] = {}
        self._followed: dict[tuple[_Either, int, int], tuple[int, int]] = {}

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

    def _follow(self, steps: Sequence[_Step], fresh: int, moved: int) -> tuple[int, int]:
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

    def _choose(self, either: _Either, fresh: int, moved: int) -> tuple[int, int]:
        """A choice, followed once from the same places: concepts stand in many phrases."""
        key = (either, fresh, moved)
        if key not in self._followed:
            options = self._options(either)
            self._followed[key] = _union(self._follow(one, fresh, moved) for one in options)
        return self._followed[key]

    def _back(self, steps: Sequence[_Step], fresh: int, moved: int) -> tuple[int, int]:
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

    def _options(self, either: _Either) -> list[tuple[_Step, ...]]:
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


def _reversed(steps: Sequence[_Step]) -> tuple[_Step, ...]:
    return tuple(reversed(steps))


def _needed(steps: Iterable[_Step]) -> frozenset[int]:
    return frozenset(step for step in steps if isinstance(step, int))


def _anchors(steps: Iterable[_Step]) -> list[frozenset[int]]:
    """Sets of symbols of which a match has at least one."""
    found: list[frozenset[int]] = []
    for step in steps:
        if isinstance(step, int):
            found.append(frozenset({step}))
        elif isinstance(step, _Either):
            options = [_anchors(option) for _, option in step.options]
            if all(options):
                found.append(frozenset().union(*(min(one, key=len) for one in options)))
    return found
