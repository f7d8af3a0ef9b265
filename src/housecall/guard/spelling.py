"""Words as people type them, put into the words that the rules know.

Contractions and listed slips come first. A word that no rule knows is then tried with digits read
as letters, letters repeated for emphasis taken out, one slip undone (a letter missing, extra,
wrong or swapped: Damerau 1964) and taken apart where the space is missing. What is tried must
give words that the rules know, and ``real_words`` are left alone: breeding is not bleeding.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache

_LEET = str.maketrans("0134578", "oieastb")
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")
_SHORTEST_MENDED, _LONGEST_MENDED = 6, 20
_SHORTEST_JOINED, _LONGEST_JOINED = 7, 40
_LONGEST_ENDING = 4
_SHORTEST_PART = 3
_SHORT_PARTS = frozenset(
    {"i", "im", "my", "is", "am", "to", "in", "of", "no", "he", "me", "it", "on"}
)
_MOST_PARTS = 4
_MOST_REMEMBERED = 20_000

Spellings = Mapping[str, tuple[str, ...]]
"""Other ways to write a word: ``cannot`` is ``can``, ``not``."""


def listed(word: str, spellings: Spellings) -> tuple[str, ...]:
    """The words that a folded word stands for by the list: ``can't`` is ``can``, ``not``."""
    found = spellings.get(word) or spellings.get(word.replace("'", ""))
    return found or (word.removesuffix("'s").replace("'", ""),)


class Speller:
    """Spells words with a list, and mends those that are not in the vocabulary of the rules."""

    def __init__(
        self,
        spellings: Spellings,
        vocabulary: Iterable[str],
        prefixes: Collection[str] = (),
        real_words: Iterable[str] = (),
        *,
        elisions: bool = False,
    ) -> None:
        self._elisions = elisions
        self._spellings = spellings
        self._prefixes = tuple(prefixes)
        self._vocabulary = frozenset(vocabulary)
        self._known = self._vocabulary | frozenset(real_words) | spellings.keys()
        self._parts = self._vocabulary | frozenset(prefixes)
        self.spell = lru_cache(_MOST_REMEMBERED)(self._spell)
        """The words that a folded word stands for."""

    @cached_property
    def _by_gap(self) -> Mapping[str, set[str]]:
        """Words by what is left of them without a letter; made for the first word to be mended."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for word in {*self._vocabulary, *self._spellings}:
            if _SHORTEST_MENDED <= len(word) <= _LONGEST_MENDED and word.isalpha():
                for form in _with_one_letter_less(word):
                    found[form].add(word)
        return found

    def _spell(self, word: str) -> tuple[str, ...]:
        if self._elisions and "'" in word:
            return tuple(one for part in word.split("'") if part for one in self._spell(part))
        words = listed(word, self._spellings)
        if len(words) > 1 or words[0] in self._known:
            return words
        if words[0].endswith("in") and words[0] + "g" in self._known:  # bleedin
            return (words[0] + "g",)
        if self._is_known(words[0]):
            return words
        return self._mend(words[0]) or words

    def _is_known(self, word: str) -> bool:
        """Also bleeding by ``bleed*``; killmyself is more than an ending away from ``kill*``."""
        shortest = max(0, len(word) - _LONGEST_ENDING)
        return word in self._known or (
            word.startswith(self._prefixes)
            and any(word[:size] in self._parts for size in range(shortest, len(word) + 1))
        )

    def _mend(self, word: str) -> tuple[str, ...]:
        plain = word.translate(_LEET) if not word.isdigit() and word[:1].isalpha() else word
        for form in dict.fromkeys([plain, *_without_repeats(plain)]):
            if form != word and self._is_known(form):
                return listed(form, self._spellings)
        if slip := self._without_slip(plain):
            return listed(slip, self._spellings)
        return self._taken_apart(plain)

    def _without_slip(self, word: str) -> str:
        """The word of the rules that one slip turns into this one."""
        if not (_SHORTEST_MENDED <= len(word) <= _LONGEST_MENDED and word.isalpha()):
            return ""
        near = set(self._by_gap.get(word, ()))
        for form in _with_one_letter_less(word):
            near |= self._by_gap.get(form, set())
            if form in self._vocabulary and len(form) >= _SHORTEST_MENDED:
                near.add(form)
        fits = sorted(one for one in near if one[0] == word[0] and _one_slip(one, word))
        return fits[0] if fits else ""

    def _taken_apart(self, word: str) -> tuple[str, ...]:
        """Words of the rules written without a space: as few as there can be, at most four."""
        if not (_SHORTEST_JOINED <= len(word) <= _LONGEST_JOINED and word.isalpha()):
            return ()
        best: list[tuple[str, ...] | None] = [(), *[None] * len(word)]
        for end in range(1, len(word) + 1):
            for start in range(end):
                before, part = best[start], word[start:end]
                long = len(part) >= _SHORTEST_PART and part in self._parts
                if (
                    before is None
                    or len(before) == _MOST_PARTS
                    or not (long or part in _SHORT_PARTS or part in self._spellings)
                ):
                    continue
                if best[end] is None or len(before) < len(best[end] or ()) - 1:
                    best[end] = (*before, part)
        parts = best[-1] or ()
        if sum(len(part) >= _SHORTEST_PART for part in parts) * 2 < len(parts):
            return ()  # many short words can be found in anything
        return tuple(piece for part in parts for piece in listed(part, self._spellings))


def _without_repeats(word: str) -> Iterator[str]:
    """``heeelp`` as ``heelp`` and ``help``."""
    if _REPEATED.search(word):
        yield _REPEATED.sub(r"\1\1", word)
        yield _REPEATED.sub(r"\1", word)


def _with_one_letter_less(word: str) -> set[str]:
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def _one_slip(one: str, other: str) -> bool:
    """Whether a letter is missing, extra or wrong, or two neighbours are swapped."""
    if abs(len(one) - len(other)) > 1:
        return False
    if len(one) != len(other):
        shorter, longer = sorted((one, other), key=len)
        return shorter in _with_one_letter_less(longer)
    wrong = [place for place in range(len(one)) if one[place] != other[place]]
    swapped = len(wrong) == 2 and wrong[1] == wrong[0] + 1
    return len(wrong) == 1 or (
        swapped and one[wrong[0]] == other[wrong[1]] and one[wrong[1]] == other[wrong[0]]
    )
