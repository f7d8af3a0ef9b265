"""The places of a text's words: bit ``p`` of an integer stands for place ``p``.

A place is left free before each sentence. Nothing stands there, so no phrase can be followed from
one sentence into the next, and nobody who follows one has to look where sentences end.
"""

from __future__ import annotations

from collections.abc import Iterable

from housecall.guard.text import Break, Text


class Places:
    """Where the words of one text stand."""

    def __init__(self, text: Text) -> None:
        by_word: dict[str, int] = {}
        word_at: list[int] = []
        place_of: list[int] = []
        place = free = 0
        for number, (word, before) in enumerate(zip(text.words, text.breaks, strict=True)):
            if before is Break.SENTENCE:
                free |= 1 << place
                place += 1
                word_at.append(number)
            by_word[word] = by_word.get(word, 0) | 1 << place
            place_of.append(place)
            word_at.append(number)
            place += 1
        self.by_word = by_word
        """The places of each different word."""
        self.word_at = word_at
        """The number of the word at a place."""
        self.taken = ((1 << place) - 1) ^ free
        """All places that have a word."""
        self._place_of = [*place_of, place]

    def of(self, ranges: Iterable[tuple[int, int]]) -> int:
        """The places of words in ranges (first, end); a range may go beyond the text."""
        places, last = 0, len(self._place_of) - 1
        for first, end in ranges:
            begin = self._place_of[min(max(first, 0), last)]
            places |= (1 << self._place_of[min(end, last)]) - (1 << begin)
        return places
