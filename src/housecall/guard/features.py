"""What the second stage weighs: words, neighbours, pairs with a gap, and pieces of words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from housecall.guard.text import Token, split

GAP = 5
"""Words after a word with which it makes a pair."""

_PIECES = (3, 4, 5)
_SHORTEST_PIECE = min(_PIECES)
_SEAM = max(_PIECES) - 1
_LONGEST_WORD = 24
_NUMBERS = ((4, "#s"), (13, "#w"), (36, "#y"), (43, "#t"), (100, "#h"), (106, "#f"), (400, "#k"))
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


class PlayedDown:
    """Words that play a message down ("probably nothing, but"): they must never lower it."""

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        by_first: defaultdict[str, list[list[str]]] = defaultdict(list)
        for phrase in phrases:
            words = [_plain(token.word) for token in split(phrase)]
            by_first[words[0]].append(words)
        self._by_first = dict(by_first)

    def places(self, words: Sequence[str]) -> Iterator[int]:
        """Where they stand among ``words``."""
        firsts, end = self._by_first, 0
        for place in [place for place, word in enumerate(words) if word in firsts]:
            for phrase in firsts[words[place]] if place >= end else ():
                if words[place : place + len(phrase)] == phrase:
                    end = place + len(phrase)
                    yield from range(place, end)
                    break


def words_to_weigh(tokens: Sequence[Token], played_down: PlayedDown) -> tuple[list[str], list[int]]:
    """The words as they are weighed, and which token each was."""
    words = [word if word.isalpha() else _plain(word) for word, *_ in tokens]
    skipped = set(played_down.places(words))
    if not skipped:
        return words, list(range(len(words)))
    places = [place for place in range(len(words)) if place not in skipped]
    return [words[place] for place in places], places


def features(words: Sequence[str]) -> Iterator[str]:
    """Everything that is weighed in a message."""
    for place, word in enumerate(words):
        yield word
        yield from pieces(word)
        following = words[place + 1 : place + 1 + GAP]
        if following:
            yield f"{word} {following[0]}"
            yield from pieces_between(word, following[0])
            for other in following[1:]:
                yield f"{word}~{other}"


def pieces(word: str) -> list[str]:
    """Runs of three to five characters in a word with its ends marked."""
    marked = f"<{word[:_LONGEST_WORD]}>"
    return [
        marked[start : start + size] for size in _PIECES for start in range(len(marked) - size + 1)
    ]


def pieces_between(word: str, other: str) -> Iterator[str]:
    """Runs of three to five characters over the seam of two words."""
    ends, parts = ends_of(word), beginnings_of(other)
    yield from (f"{end}_" for end in ends if len(end) >= _SHORTEST_PIECE - 1)
    yield from (f"_{part}" for part in parts if len(part) >= _SHORTEST_PIECE - 1)
    for end in ends:
        for part in parts:
            if len(end) + 1 + len(part) in _PIECES:
                yield f"{end}_{part}"


def ends_of(word: str) -> tuple[str, ...]:
    """What a piece over the seam after a word may have of it."""
    return tuple(word[-size:] for size in range(1, min(_SEAM, len(word)) + 1))


def beginnings_of(word: str) -> tuple[str, ...]:
    """What a piece over the seam before a word may have of it."""
    return tuple(word[:size] for size in range(1, min(_SEAM, len(word)) + 1))


def _plain(word: str) -> str:
    if word[0].isdigit():
        return _number(word)
    return word.replace("'", "")


def _number(word: str) -> str:
    """The size of a number: an age, a temperature, a pulse."""
    found = _DIGITS.match(word)
    value = float(found.group()) if found and len(found.group()) < 9 else 1e9
    return next((name for limit, name in _NUMBERS if value < limit), "#m") + word[-2:].strip(
        "0123456789.,:/"
    )
