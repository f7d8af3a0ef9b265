"""A message as words to match, each knowing where it stands in the message.

Folding goes character by character (NFKC, case, Latin accents, invisible characters), so that
every word can be traced back to the characters the user typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple


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


Spell = Callable[[str], tuple[str, ...]]
"""The words that a folded word stands for."""

_HAN = r"\u3400-\u9fff"  # written without spaces: each character is a word
_MARK = r"[\u0900-\u0903\u093a-\u094d\u0962\u0963]"  # vowel signs, which \w leaves out
_BREAKS = (
    r"(\.{2,}|[,:()\[\]\u3001]|--+|(?<=\s)-(?=\s)|[\u2013\u2014])"
    r"|([\n\r])"
    r"|([.!?;\u3002\u0964])"
)


def _tokens(letter: str, more: str) -> re.Pattern[str]:
    """Words (spaced out, others), then what stands between them, in the order of ``Break``."""
    return re.compile(
        r"((?<![^\W_])[a-z](?:[ .*_-]{1,2}[a-z]){3,}(?![^\W_]))"
        rf"|(\d+(?:[.,:/]\d+)*|{letter}+{more})"
        rf"|{_BREAKS}"
    )


_LETTER = rf"[^\W_{_HAN}]"
_TOKEN = _tokens(_LETTER, rf"(?:(?:'(?={_LETTER})|{_MARK}){_LETTER}*)*|[{_HAN}]")
_ASCII_TOKEN = _tokens("[a-z0-9]", "(?:'[a-z0-9]+)*")
_SPACED, _WORD = 1, 2  # numbers of groups
_BREAKS_IN_ORDER = tuple(Break)
_LONGEST_WORD = 200  # what is more of it is not read: readers keep words that they have met
_SEPARATORS = re.compile(r"[ .*_-]")
_DISGUISED = re.compile(r"(?<=[a-z])[@$](?=[a-z])|(?<=\b[a-z])!(?=[a-z])")
_DISGUISES = {"@": "a", "$": "s", "!": "i"}
_LETTERS = re.compile(r"[^\W\d_]+")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4\u0060\u2032"), "'")
# Nukta and candrabindu, which people leave out or confuse.
_DEVANAGARI = {0x093C: None, 0x0901: 0x0902}
# Cyrillic and Greek letters that look like Latin ones in lower case.
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0458\u0455\u04bb\u0501\u03bf\u03b1\u03b9\u03bd",
    "aeopcxyijshdoaiv",
)


class Token(NamedTuple):
    """A folded word as it was typed, its place in the message, and what stands before it."""

    word: str
    start: int
    end: int
    before: Break


def read_text(text: str, spell: Spell) -> Text:
    """Split a message into folded words."""
    return spelled(text, split(text), spell)


def split(text: str) -> list[Token]:
    """The words of a message before they are spelled in any language."""
    folded, origins = _fold_all(text)
    if not _DISGUISES.keys().isdisjoint(folded):
        folded = _DISGUISED.sub(lambda found: _DISGUISES[found.group()], folded)
    tokens: list[Token] = []
    strongest = Break.NONE
    for found in (_ASCII_TOKEN if folded.isascii() else _TOKEN).finditer(folded):
        kind = found.lastindex or 0
        if kind > _WORD:
            strongest = max(strongest, _BREAKS_IN_ORDER[kind - _WORD])
            continue
        written = found.group()[:_LONGEST_WORD]
        if kind == _SPACED:
            written = _SEPARATORS.sub("", written)
        start, end = found.span()
        if origins:
            start, end = origins[start], max(origins[end], origins[end - 1] + 1)
        tokens.append(Token(written, start, end, strongest))
        strongest = Break.NONE
    return tokens


def spelled(text: str, tokens: Sequence[Token], spell: Spell) -> Text:
    """The words of a message as a language's rules see them."""
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    breaks: list[Break] = []
    for token in tokens:
        before = token.before
        for word in spell(token.word):
            words.append(word)
            starts.append(token.start)
            ends.append(token.end)
            breaks.append(before)
            before = Break.NONE
    return Text(text, words, starts, ends, breaks)


def words_in(folded: str) -> list[str]:
    """The words of a folded text, as they stand there."""
    return [token.group() for token in _TOKEN.finditer(folded) if token.lastindex == _WORD]


def fold(text: str) -> str:
    """The text as it is matched: case, accents and invisible characters gone."""
    return _fold_all(text)[0]


def _fold_all(text: str) -> tuple[str, Sequence[int]]:
    """The folded text, and for each of its characters (and its end) the place in ``text``.

    Without places where they are the same.
    """
    if text.isascii():
        return text.lower().replace("`", "'"), ()
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
    parts = unicodedata.normalize("NFKD", plain).translate(_DEVANAGARI)
    return unicodedata.normalize("NFC", "".join(c for c in parts if not "\u0300" <= c <= "\u036f"))


def _without_lookalikes(letters: re.Match[str]) -> str:
    """A word of mixed scripts in Latin letters, as ``pain`` with a Cyrillic a."""
    word = letters.group()
    mixed = not word.isascii() and any("a" <= c <= "z" for c in word)
    return word.translate(_LOOKALIKES) if mixed else word
