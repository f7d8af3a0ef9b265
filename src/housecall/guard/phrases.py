"""The pattern language of the rule packs.

    chest (pain|pressure)    words, and a choice of words
    (my|the)? chest          may be left out
    bleed*                   any word that begins so
    chest ~3 hurts           up to three words between
    <body part>              a concept: any of its own phrases
    <number> <number 38-42>  any number, a number in a range
    <decimal 38-42>          one with a decimal point

``can't``, ``cant`` and ``cannot`` are the same: patterns are folded as messages are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from housecall.guard.spelling import Spellings, listed
from housecall.guard.text import fold, words_in

LONGEST_GAP = 9
_TOKEN = re.compile(r"~\d*|[()|?]|<[^<>]*>?|[^\s()|?<>~]+|>")
_NUMBER = re.compile(r"(number|decimal)(?: (\d+(?:\.\d+)?)-(\d+(?:\.\d+)?))?")
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
    """A number from ``low`` to ``high``, with a point in it where it is ``decimal``."""

    low: float
    high: float
    decimal: bool = False

    def matches(self, word: str) -> bool:
        """Whether ``word`` is such a number."""
        found = _LEADING_NUMBER.match(word)
        if found is None or (self.decimal and "." not in found.group()):
            return False
        return self.low <= float(found.group()) <= self.high


@dataclass(frozen=True, slots=True)
class Gap:
    """Up to ``longest`` words of any kind."""

    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One of several sequences; an empty one makes it optional."""

    options: tuple[Elements, ...]


Element = Word | Number | Gap | Choice
Elements = tuple[Element, ...]
Concepts = Mapping[str, Element]


def parse(
    pattern: str,
    spellings: Spellings,
    concepts: Concepts,
    read: dict[str, Elements] | None = None,
) -> list[Elements]:
    """The alternatives of a pattern. Raises PhraseError.

    Patterns of one language share their words: ``read`` keeps what was made of each.
    """
    parser = _Parser(pattern, spellings, concepts, {} if read is None else read)
    options = parser.alternatives()
    if parser.token:
        raise PhraseError("')' without '('")
    if not all(has_words(option) for option in options):
        raise PhraseError("it could match without any word: name a word that must be there")
    return options


def has_words(elements: Elements) -> bool:
    """Whether the sequence can't match without any word."""
    return any(
        isinstance(element, Word | Number)
        or (isinstance(element, Choice) and all(has_words(one) for one in element.options))
        for element in elements
    )


class _Parser:
    """Reads one pattern from left to right; ``token`` is what comes next, empty at the end."""

    def __init__(
        self, pattern: str, spellings: Spellings, concepts: Concepts, read: dict[str, Elements]
    ) -> None:
        self._tokens = [*_TOKEN.findall(fold(pattern)), ""]
        self.token = self._tokens[0]
        self._place = 0
        self._spellings = spellings
        self._concepts = concepts
        self._read = read

    def alternatives(self) -> list[Elements]:
        """``a b|c``, up to a closing bracket or the end."""
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options

    def _next(self) -> None:
        self._place += 1
        self.token = self._tokens[self._place]

    def _take(self, token: str) -> bool:
        if self.token != token:
            return False
        self._next()
        return True

    def _sequence(self) -> Elements:
        elements: list[Element] = []
        while self.token not in ("", "|", ")"):
            elements.extend(self._item())
        if not elements:
            raise PhraseError("nothing stands where a word should")
        return tuple(elements)

    def _item(self) -> Elements:
        token = self.token
        self._next()
        if token[0] == "~":
            return (_gap(token),)
        if token[0] == "<":
            item = self._named(token)
        elif token == "(":
            item = (choice(self.alternatives()),)
            if not self._take(")"):
                raise PhraseError("'(' without ')'")
        elif token == "?":
            raise PhraseError("'?' must follow a choice or a concept: (word)?")
        else:
            item = self._read.get(token) or self._words(token)
            self._read[token] = item
            return item
        return (Choice((item, ())),) if self._take("?") else item

    def _named(self, token: str) -> Elements:
        name = " ".join(token.strip("<>").split())
        if not token.endswith(">"):
            raise PhraseError(f"'{token}' without '>'")
        if number := _NUMBER.fullmatch(name):
            low, high = float(number[2] or 0), float(number[3] or "inf")
            return (Number(low, high, decimal=number[1] == "decimal"),)
        if name not in self._concepts:
            raise PhraseError(f"there is no concept <{name}> above it")
        return (self._concepts[name],)

    def _words(self, token: str) -> Elements:
        stem = token.removesuffix("*")
        pieces = words_in(stem)
        if "".join(pieces) != stem:
            raise PhraseError(f"'{token}': a word has letters and digits only")
        if token.endswith("*"):
            return (Word(frozenset(), (stem,)),)
        spelt = (word for piece in pieces for word in listed(piece, self._spellings))
        return tuple(Word(frozenset({word})) for word in spelt)


def _gap(token: str) -> Gap:
    digits = token[1:]
    if not digits or not 1 <= int(digits) <= LONGEST_GAP:
        raise PhraseError(f"'{token}': a gap is ~1 to ~{LONGEST_GAP}")
    return Gap(int(digits))


def choice(options: Sequence[Elements]) -> Element:
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
