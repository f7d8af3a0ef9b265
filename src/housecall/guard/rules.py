"""The rules of a language, compiled and ready to be looked for in a message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from housecall.errors import ConfigError
from housecall.guard.context import CUE
from housecall.guard.packs import (
    Cues,
    Language,
    Pack,
    Rule,
    line_of,
    read_packs,
    read_words,
    read_yaml,
)
from housecall.guard.phrases import Choice, Element, Elements, PhraseError, Word, choice, parse
from housecall.guard.search import Search
from housecall.guard.spelling import Speller
from housecall.guard.text import Text, Token, fold, spelled

RULE, UNLESS, CONCEPT = "rule", "unless", "concept"
"""Kinds of hits beside cues."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A rule that fires on ``at_least`` so many different ones of these concepts."""

    rule: str
    at_least: int
    concepts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything known about one language."""

    rules: dict[str, Rule]
    sums: tuple[Sum, ...]
    sums_of: Mapping[str, Sequence[int]]
    """The numbers of the sums that a concept is part of."""
    search: Search
    cues: Search
    speller: Speller
    function_words: frozenset[str]
    language: str
    background: frozenset[str]

    def read(self, text: str, tokens: Sequence[Token]) -> Text:
        """The words of a message in the spelling of the rules."""
        return spelled(text, tokens, self.speller.spell)


def load_rules(folder: Traversable) -> RuleSet:
    """Read and compile the packs in a folder. Raises ConfigError."""
    language = read_yaml(folder / "language.yaml", Language)
    packs = read_packs(folder)
    compiler = _Compiler(language, folder)
    for name, pack in packs.items():
        compiler.add_concepts(name, pack)
    compiler.add_cues(read_yaml(folder / "reading.yaml", Cues))
    for name, pack in packs.items():
        for rule in pack.rules:
            compiler.add_rule(name, rule)
    stops = frozenset(language.gap_stops)
    return RuleSet(
        {rule.id: rule for pack in packs.values() for rule in pack.rules},
        tuple(compiler.sums),
        _sums_of(compiler.sums),
        Search([*compiler.phrases, *compiler.asked_concepts()], stops),
        Search(compiler.cues, stops),
        compiler.speller(language, read_words(folder / "real_words.txt")),
        frozenset(map(fold, language.function_words)),
        language.language,
        frozenset(name for pack in packs.values() for name in pack.background),
    )


def _sums_of(sums: Sequence[Sum]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(sums):
        for name in dict.fromkeys(one.concepts):
            found[name].append(number)
    return dict(found)


class _Compiler:
    """Turns patterns into phrases; errors name the file, the line and the rule."""

    def __init__(self, language: Language, folder: Traversable) -> None:
        self._folder = folder
        self.spellings = {
            fold(key): tuple(fold(value).split()) for key, value in language.spellings.items()
        }
        self.sums: list[Sum] = []
        self.phrases: list[tuple[str, str, Elements]] = []
        self.cues: list[tuple[str, str, Elements]] = []
        self._concepts: dict[str, Element] = {}
        self._asked: set[str] = set()
        self._read: dict[str, Elements] = {}

    def add_concepts(self, file: str, pack: Pack) -> None:
        for name, patterns in pack.concepts.items():
            what = f"concept {name!r}"
            if name in self._concepts:
                raise self._error(file, what, "is there twice", f"{name}:")
            self._concepts[name] = choice(
                [e for pattern in patterns for e in self._compile(pattern, file, what)]
            )

    def add_cues(self, cues: Cues) -> None:
        for name, patterns in cues:
            compiled = [e for p in patterns for e in self._compile(p, "reading.yaml", name)]
            self.cues += ((CUE, name, one) for one in compiled)

    def add_rule(self, file: str, rule: Rule) -> None:
        what = f"rule {rule.id!r}"
        if not rule.patterns and not rule.combinations and not rule.sums:
            raise self._error(file, what, "needs patterns, combinations or sums", f"id: {rule.id}")
        for kind, patterns in ((RULE, rule.patterns), (UNLESS, rule.unless)):
            elements = [e for pattern in patterns for e in self._compile(pattern, file, what)]
            self.phrases += ((kind, rule.id, one) for one in elements)
        for combination in rule.combinations:
            names = tuple(" ".join(part.split()) for part in combination.split("+"))
            of = f"{what}: combination {combination!r}"
            self._add_sum(Sum(rule.id, len(names), names), file, of, combination)
        for number, one in enumerate(rule.sums, start=1):
            sum_ = Sum(rule.id, one.at_least, tuple(one.of))
            self._add_sum(sum_, file, f"{what}: sum {number}", f"id: {rule.id}")
        for name in rule.not_with:
            self._ask(name, file, f"{what}: not_with", f"id: {rule.id}")

    def asked_concepts(self) -> Iterator[tuple[str, str, Elements]]:
        """Phrases of the concepts that rules count."""
        for name in sorted(self._asked):
            yield CONCEPT, name, (self._concepts[name],)

    def speller(self, language: Language, real_words: Iterable[str]) -> Speller:
        """Knows the words of all patterns, and leaves ``real_words`` alone."""
        words: set[str] = set(map(fold, language.function_words))
        prefixes: set[str] = set()
        for _, _, elements in [*self.phrases, *self.cues, *self.asked_concepts()]:
            for word in _words(elements):
                words |= word.words
                prefixes.update(word.prefixes)
        real = map(fold, real_words)
        return Speller(self.spellings, words, prefixes, real, elisions=language.elisions)

    def _add_sum(self, added: Sum, file: str, what: str, wanted: str) -> None:
        if not 2 <= added.at_least <= len(set(added.concepts)):
            raise self._error(file, what, "needs two concepts or more", wanted)
        for name in added.concepts:
            self._ask(name, file, what, wanted)
        self.sums.append(added)

    def _ask(self, name: str, file: str, what: str, wanted: str) -> None:
        if name not in self._concepts:
            raise self._error(file, what, f"no concept {name!r}", wanted)
        self._asked.add(name)

    def _compile(self, pattern: str, file: str, what: str) -> list[Elements]:
        try:
            return parse(pattern, self.spellings, self._concepts, self._read)
        except PhraseError as error:
            problem = f"pattern {pattern!r}: {error}"
            raise self._error(file, what, problem, pattern) from error

    def _error(self, file: str, what: str, problem: str, wanted: str) -> ConfigError:
        return ConfigError(
            f"guard file {file}{line_of(self._folder / file, wanted)}: {what}: {problem}"
        )


def _words(elements: Elements) -> Iterator[Word]:
    for element in elements:
        if isinstance(element, Word):
            yield element
        elif isinstance(element, Choice):
            for option in element.options:
                yield from _words(option)
