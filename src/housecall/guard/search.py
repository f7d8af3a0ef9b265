"""The search for many phrases at once.

A phrase is looked up by its anchor word and then followed as a set of positions (Thompson,
"Regular expression search algorithm", 1968): no text can make it slow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass

from housecall.guard.phrases import Choice, Elements, Gap, Phrase
from housecall.guard.text import Break, Text

_Named = tuple[str, str, Phrase]


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A phrase of ``kind`` and ``name``, from word ``start`` up to, not including, ``end``."""

    start: int
    end: int
    kind: str
    name: str


class Search:
    """Finds the phrases it was made with: ``(kind, name, phrase)``.

    Gaps do not go over ``gap_stops``: "face is not drooping" is no drooping face.
    """

    def __init__(self, phrases: Iterable[_Named], gap_stops: Container[str] = ()) -> None:
        self._gap_stops = gap_stops
        self._by_word: defaultdict[str, list[_Named]] = defaultdict(list)
        self._by_prefix: defaultdict[str, list[_Named]] = defaultdict(list)
        for named in phrases:
            anchor = named[2].anchor
            for word in anchor.words:
                self._by_word[word].append(named)
            for prefix in anchor.prefixes:
                self._by_prefix[prefix].append(named)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def find(self, text: Text) -> list[Hit]:
        """Where the phrases stand, in order; of those that begin together only the longest."""
        longest: dict[tuple[int, str, str], int] = {}
        anchored_by: dict[str, list[_Named]] = {}
        for place, word in enumerate(text.words):
            if word not in anchored_by:
                anchored_by[word] = self._anchored_by(word)
            for kind, name, phrase in anchored_by[word]:
                first = max(0, place - phrase.farthest)
                for start in range(first, place - phrase.nearest + 1):
                    if ends := self._follow(phrase.elements, text, start, {start}):
                        key = (start, kind, name)
                        longest[key] = max(longest.get(key, 0), *ends)
        return sorted(Hit(start, end, kind, name) for (start, kind, name), end in longest.items())

    def _anchored_by(self, word: str) -> list[_Named]:
        found = list(self._by_word.get(word, ()))
        for length in self._prefix_lengths:
            if length <= len(word):
                found.extend(self._by_prefix.get(word[:length], ()))
        return found

    def _follow(
        self, elements: Elements, text: Text, start: int, positions: set[int]
    ) -> set[int]:
        """Where a sequence can end that goes on from ``positions`` of a match begun at ``start``."""
        for element in elements:
            if isinstance(element, Gap):
                positions = self._skip(element.longest, text, positions)
            elif isinstance(element, Choice):
                options = (self._follow(option, text, start, positions) for option in element.options)
                positions = set().union(*options)
            else:
                positions = {
                    place + 1
                    for place in positions
                    if place < len(text.words)
                    and element.matches(text.words[place])
                    and (place == start or text.breaks[place] < Break.SENTENCE)
                }
            if not positions:
                break
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
