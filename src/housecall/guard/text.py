"""A message as words to match, each knowing where it stands in the message.

Folding goes character by character (NFKC, case, Latin accents, invisible characters), so that
every word can be traced back to the characters the user typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

Spellings = Mapping[str, tuple[str, ...]]
"""Other ways to write a word: ``cannot`` is ``can``, ``not``."""


class Break(IntEnum):
    """What stands between two words, from weak to strong."""

    NONE = 0
    COMMA = 1
    LINE = 2
    SENTENCE = 3


@dataclass(frozen=True, slots=True)
class Text:
    """``words[i]`` comes from ``original[starts[i]:ends[i]]``; ``breaks[i]`` stands before it."""

    original: str
    words: Sequence[str]
    starts: Sequence[int]
    ends: Sequence[int]
    breaks: Sequence[Break]

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where the words from ``first`` up to, not including, ``last`` stand."""
        return self.starts[first], self.ends[last - 1]


_TOKEN = re.compile(
    r"(?P<word>\d+(?:[.,:/]\d+)*[^\W\d_]*|[^\W_]+(?:'[^\W_]+)*)"
    r"|(?P<COMMA>\.{2,}|[,:()\[\]]|--+|(?<=\s)-(?=\s)|[\u2013\u2014])"
    r"|(?P<SENTENCE>[.!?;\u3002])"
    r"|(?P<LINE>[\n\r])"
)
_LETTERS = re.compile(r"[^\W\d_]+")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4\u0060\u2032"), "'")
# Cyrillic and Greek letters that look like Latin ones in lower case.
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0458\u0455\u04bb\u0501\u03bf\u03b1\u03b9\u03bd",
    "aeopcxyijshdoaiv",
)


def read_text(text: str, spellings: Spellings) -> Text:
    """Split a message into folded words."""
    folded, origins = _fold_all(text)
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    breaks: list[Break] = []
    strongest = Break.NONE
    for token in _TOKEN.finditer(folded):
        kind = token.lastgroup
        if kind != "word":
            strongest = max(strongest, Break[str(kind)])
            continue
        first, last = token.span()
        for word in spell(token.group(), spellings):
            words.append(word)
            starts.append(origins[first])
            ends.append(max(origins[last], origins[last - 1] + 1))
            breaks.append(strongest)
            strongest = Break.NONE
    return Text(text, words, starts, ends, breaks)


def fold(text: str) -> str:
    """The text as it is matched: case, accents and invisible characters gone."""
    return _fold_all(text)[0]


def spell(word: str, spellings: Spellings) -> tuple[str, ...]:
    """The words that a folded word stands for: ``can't`` is ``can``, ``not``."""
    found = spellings.get(word) or spellings.get(word.replace("'", ""))
    return found or (word.removesuffix("'s").replace("'", ""),)


def _fold_all(text: str) -> tuple[str, Sequence[int]]:
    """The folded text, and for each of its characters (and its end) the place in ``text``."""
    if text.isascii():
        return text.lower().replace("`", "'"), range(len(text) + 1)
    pieces: list[str] = []
    origins: list[int] = []
    for place, character in enumerate(text):
        piece = _fold_character(character)
        pieces.append(piece)
        origins.extend([place] * len(piece))
    folded = _LETTERS.sub(_without_lookalikes, "".join(pieces))
    return folded, [*origins, len(text)]


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    if unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""  # zero-width, soft hyphen, direction marks, variation selectors
    character = character.translate(_APOSTROPHES)
    plain = unicodedata.normalize("NFKC", character).casefold()
    # Only these accents go (Latin, Greek, Cyrillic): marks of other scripts are letters.
    parts = unicodedata.normalize("NFKD", plain)
    return unicodedata.normalize("NFC", "".join(c for c in parts if not "\u0300" <= c <= "\u036f"))


def _without_lookalikes(letters: re.Match[str]) -> str:
    """A word of mixed scripts in Latin letters, as ``pain`` with a Cyrillic a."""
    word = letters.group()
    mixed = not word.isascii() and any("a" <= c <= "z" for c in word)
    return word.translate(_LOOKALIKES) if mixed else word
