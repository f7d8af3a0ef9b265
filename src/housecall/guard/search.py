"""The search for many phrases at once.

A phrase is looked up by its anchor, the word in it that the fewest phrases share, and then
followed as a set of positions (Thompson, "Regular expression search algorithm", 1968): no text
can make it slow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from housecall.guard.phrases import Choice, Elements, Gap, Word, widths
from housecall.guard.text import Break, Text


@dataclass(frozen=True, slots=True)
class Hit:
    """A phrase of ``kind`` and ``name``, from word ``start`` up to, not including, ``end``."""

    start: int
    end: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A sequence that begins ``nearest`` to ``farthest`` words before its anchor."""

    kind: str
    name: str
    elements: Elements
    anchor: Word
    nearest: int
    farthest: int

    def possible(self, words: Iterable[str]) -> bool:
        """Whether a message of these words has one for each word that must be there."""
        return all(
            any(element.matches(word) for word in words)
            if element.prefixes
            else not element.words.isdisjoint(words)
            for element in self.elements
            if isinstance(element, Word)
        )


class Search:
    """Finds the phrases it was made with: kind, name and a sequence that has a word.

    Gaps do not go over ``gap_stops``: "face is not drooping" is no drooping face.
    """

    def __init__(
        self, phrases: Sequence[tuple[str, str, Elements]], gap_stops: Container[str] = ()
    ) -> None:
        self._gap_stops = gap_stops
        self._by_word: defaultdict[str, list[_Phrase]] = defaultdict(list)
        self._by_prefix: defaultdict[str, list[_Phrase]] = defaultdict(list)
        shared = Counter(form for *_, elements in phrases for form in _forms(elements))
        for kind, name, elements in phrases:
            phrase = _anchored(kind, name, elements, shared)
            for word in phrase.anchor.words:
                self._by_word[word].append(phrase)
            for prefix in phrase.anchor.prefixes:
                self._by_prefix[prefix].append(phrase)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def find(self, text: Text) -> list[Hit]:
        """Where the phrases stand, in order; of those that begin together only the longest."""
        longest: dict[tuple[int, str, str], int] = {}
        distinct = frozenset(text.words)
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, word in enumerate(text.words):
            places[word].append(place)
        for word in places:
            for phrase in self._anchored_by(word, distinct):
                for start in _starts(phrase, places[word]):
                    if end := self._end(phrase, text, start):
                        key = (start, phrase.kind, phrase.name)
                        longest[key] = max(longest.get(key, 0), end)
        found = sorted((start, end, kind, name) for (start, kind, name), end in longest.items())
        return [Hit(*one) for one in found]

    def _end(self, phrase: _Phrase, text: Text, start: int) -> int:
        """Where the longest match ends that begins at ``start``; 0 if there is none."""
        first = phrase.elements[0]
        if isinstance(first, Word):  # most searches end here: not worth a set of positions
            if not first.matches(text.words[start]):
                return 0
            if len(phrase.elements) == 1:
                return start + 1
        return max(self._follow(phrase.elements, text, start, {start}), default=0)

    def _anchored_by(self, word: str, distinct: frozenset[str]) -> Iterator[_Phrase]:
        """The phrases with this anchor that a message of these words can hold."""
        prefixes = (word[:length] for length in self._prefix_lengths if length <= len(word))
        found = [self._by_word.get(word, ()), *(self._by_prefix.get(p, ()) for p in prefixes)]
        return (phrase for phrases in found for phrase in phrases if phrase.possible(distinct))

    def _follow(self, elements: Elements, text: Text, start: int, positions: set[int]) -> set[int]:
        """Where a sequence can end that goes on from ``positions`` of a match from ``start``."""
        words, breaks = text.words, text.breaks
        for element in elements:
            reached: set[int] = set()
            if isinstance(element, Gap):
                reached = self._skip(element.longest, text, positions)
            elif isinstance(element, Choice):
                for option in element.options:
                    reached |= self._follow(option, text, start, positions)
            else:
                for place in positions:
                    joined = place == start or (
                        place < len(words) and breaks[place] < Break.SENTENCE
                    )
                    if joined and element.matches(words[place]):
                        reached.add(place + 1)
            if not reached:
                return reached
            positions = reached
        return positions

    def _skip(self, longest: int, text: Text, positions: set[int]) -> set[int]:
        reached = set(positions)
        for first in positions:
            for place in range(first, min(first + longest, len(text.words))):
                stopped = text.words[place] in self._gap_stops
                if stopped or text.breaks[place] >= Break.SENTENCE:
                    break
                reached.add(place + 1)
        return reached


def _starts(phrase: _Phrase, anchors: Iterable[int]) -> Iterator[int]:
    """Where the phrase may begin for one of its anchors at these places, each start once."""
    untried = 0
    for place in anchors:
        last = place - phrase.nearest
        yield from range(max(untried, place - phrase.farthest), last + 1)
        untried = max(untried, last + 1)


def _anchored(kind: str, name: str, elements: Elements, shared: Counter[str]) -> _Phrase:
    """The phrase with the anchor that the fewest phrases share."""
    words = [(place, e) for place, e in enumerate(elements) if isinstance(e, Word)]
    place, anchor = min(words, key=lambda item: max(shared[form] for form in _forms([item[1]])))
    nearest, farthest = widths(elements[:place])
    return _Phrase(kind, name, elements, anchor, nearest, farthest)


def _forms(elements: Iterable[object]) -> Iterator[str]:
    for element in elements:
        if isinstance(element, Word):
            yield from element.words
            yield from element.prefixes
