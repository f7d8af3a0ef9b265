"""The places of a text's words: bit ``p`` of an integer stands for place ``p``.

A place is left free before each sentence. Nothing stands there, so no phrase can be followed from
one sentence into the next, and nobody who follows one has to look where sentences end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from housecall.guard.text import Break, Text

_MANY = 16


class Places:
    """Where the words of one text stand."""

    def __init__(self, text: Text) -> None:
        places: dict[str, list[int]] = {}
        place_of: list[int] = []
        word_at: list[int] = []
        free: list[int] = []
        for number, (word, before) in enumerate(zip(text.words, text.breaks, strict=True)):
            if before is Break.SENTENCE:
                free.append(len(word_at))
                word_at.append(number)
            place = len(word_at)
            if word in places:
                places[word].append(place)
            else:
                places[word] = [place]
            place_of.append(place)
            word_at.append(number)
        self.by_word = {word: _set_of(those) for word, those in places.items()}
        """The places of each different word."""
        self.word_at = word_at
        """The number of the word at a place."""
        self.taken = ((1 << len(word_at)) - 1) ^ _set_of(free)
        """All places that have a word."""
        self._place_of = [*place_of, len(word_at)]

    def of(self, ranges: Iterable[tuple[int, int]]) -> int:
        """The places of words in ranges (first, end); a range may go beyond the text."""
        places, last = 0, len(self._place_of) - 1
        for first, end in ranges:
            begin = self._place_of[min(max(first, 0), last)]
            places |= (1 << self._place_of[min(end, last)]) - (1 << begin)
        return places


def _set_of(places: Sequence[int]) -> int:
    """These places, in order, as a set. Each shift makes an integer: too many of them for many."""
    if len(places) < _MANY:
        found = 0
        for place in places:
            found |= 1 << place
        return found
    bits = bytearray(places[-1] // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")
