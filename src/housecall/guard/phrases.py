"""The pattern language of the rule packs.

    chest (pain|pressure)    words, and a choice of words
    (my|the)? chest          may be left out
    bleed*                   any word that begins so
    chest ~3 hurts           up to three words between
    <body part>              a concept: any of its own phrases
    <number> <number 38-42>  any number, a number in a range

``can't``, ``cant`` and ``cannot`` are the same: patterns are folded as messages are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from housecall.guard.text import Spellings, fold, spell

_LONGEST_GAP = 9
_TOKEN = re.compile(r"~\d*|[()|?]|<[^<>]*>?|[^\s()|?<>~]+|>")
_NUMBER = re.compile(r"number(?: (\d+(?:\.\d+)?)-(\d+(?:\.\d+)?))?")
_LEADING_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class PhraseError(ValueError):
    """A pattern that can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word: any of ``words``, or one that begins with any of ``prefixes``."""

    words: frozenset[str]
    prefixes: tuple[str, ...] = ()

    def matches(self, word: str) -> bool:
        """Whether ``word`` is this one."""
        return word in self.words or (bool(self.prefixes) and word.startswith(self.prefixes))


@dataclass(frozen=True, slots=True)
class Number:
    """A word that begins with a number from ``low`` to ``high``: ``39.5c``."""

    low: float
    high: float

    def matches(self, word: str) -> bool:
        """Whether ``word`` is such a number."""
        found = _LEADING_NUMBER.match(word)
        return found is not None and self.low <= float(found.group()) <= self.high


@dataclass(frozen=True, slots=True)
class Gap:
    """Up to ``longest`` words of any kind."""

    longest: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences; an empty one makes it optional."""

    options: tuple[Elements, ...]


Element = Word | Number | Gap | Choice
Elements = tuple[Element, ...]
Concepts = Mapping[str, Sequence[Elements]]


def parse(pattern: str, spellings: Spellings, concepts: Concepts) -> list[Elements]:
    """The alternatives of a pattern. Raises PhraseError."""
    parser = _Parser(pattern, spellings, concepts)
    options = parser.alternatives()
    if parser.next_token():
        raise PhraseError("')' without '('")
    return options


def with_words(elements: Elements) -> list[Elements]:
    """The sequence if it has a word that must be there, else its choices taken apart.

    Raises PhraseError for a sequence that could match without any word.
    """
    if any(isinstance(element, Word) for element in elements):
        return [elements]
    for place, choice in enumerate(elements):
        if isinstance(choice, Choice):
            before, after = elements[:place], elements[place + 1 :]
            return [
                sequence
                for option in choice.options
                for sequence in with_words((*before, *option, *after))
            ]
    raise PhraseError("it could match without any word: name a word that must be there")


def widths(elements: Elements) -> tuple[int, int]:
    """The fewest and the most words that a sequence covers."""
    fewest = most = 0
    for element in elements:
        low = high = 1
        if isinstance(element, Gap):
            low, high = 0, element.longest
        elif isinstance(element, Choice):
            options = [widths(option) for option in element.options]
            low, high = min(low for low, _ in options), max(high for _, high in options)
        fewest, most = fewest + low, most + high
    return fewest, most


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str, spellings: Spellings, concepts: Concepts) -> None:
        self._tokens = _TOKEN.findall(fold(pattern))
        self._place = 0
        self._spellings = spellings
        self._concepts = concepts

    def next_token(self) -> str:
        """The token to be read next, empty at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def alternatives(self) -> list[Elements]:
        """``a b|c``, up to a closing bracket or the end."""
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options

    def _take(self, token: str) -> bool:
        taken = self.next_token() == token
        self._place += taken
        return taken

    def _sequence(self) -> Elements:
        elements: list[Element] = []
        while self.next_token() not in ("", "|", ")"):
            elements.extend(self._item())
        if not elements:
            raise PhraseError("nothing stands where a word should")
        return tuple(elements)

    def _item(self) -> Elements:
        token = self.next_token()
        self._place += 1
        if token.startswith("~"):
            return (_gap(token),)
        if token.startswith("<"):
            item = self._named(token)
        elif token == "(":
            item = (_choice(self.alternatives()),)
            if not self._take(")"):
                raise PhraseError("'(' without ')'")
        elif token == "?":
            raise PhraseError("'?' must follow a choice or a concept: (word)?")
        else:
            return self._words(token)
        return (Choice((item, ())),) if self._take("?") else item

    def _named(self, token: str) -> Elements:
        name = " ".join(token.strip("<>").split())
        if not token.endswith(">"):
            raise PhraseError(f"'{token}' without '>'")
        if number := _NUMBER.fullmatch(name):
            return (Number(float(number[1] or 0), float(number[2] or "inf")),)
        if name not in self._concepts:
            raise PhraseError(f"there is no concept <{name}> above it")
        return (_choice(self._concepts[name]),)

    def _words(self, token: str) -> Elements:
        stem = token.removesuffix("*")
        if not all(part.isalnum() for part in stem.split("'")):
            raise PhraseError(f"'{token}': a word has letters and digits only")
        if token.endswith("*"):
            return (Word(frozenset(), (stem,)),)
        return tuple(Word(frozenset({word})) for word in spell(token, self._spellings))


def _gap(token: str) -> Gap:
    digits = token[1:]
    if not digits or not 1 <= int(digits) <= _LONGEST_GAP:
        raise PhraseError(f"'{token}': a gap is ~1 to ~{_LONGEST_GAP}")
    return Gap(int(digits))


def _choice(options: Sequence[Elements]) -> Element:
    """A choice, its single words joined into one word with many forms: that is quick to follow."""
    words = [option[0] for option in options if len(option) == 1 and isinstance(option[0], Word)]
    longer = [option for option in options if len(option) > 1 or not isinstance(option[0], Word)]
    word = Word(
        frozenset().union(*(word.words for word in words)),
        tuple(prefix for word in words for prefix in word.prefixes),
    )
    if not longer:
        return word
    return Choice((*longer, (word,)) if words else tuple(longer))
