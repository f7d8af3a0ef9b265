"""The rules of a language, compiled and ready to be looked for in a message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from housecall.errors import ConfigError
from housecall.guard.context import CUE
from housecall.guard.packs import Cues, Language, Pack, Rule, read_packs, read_yaml
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
        return spelled(text, tokens, self.speller)


def load_rules(folder: Traversable) -> RuleSet:
    """Read and compile the packs in a folder. Raises ConfigError."""
    language = read_yaml(folder / "language.yaml", Language)
    packs = read_packs(folder)
    compiler = _Compiler(language)
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
        compiler.speller(language, _real_words(folder / "real_words.txt")),
        frozenset(map(fold, language.function_words)),
        language.language,
        frozenset(name for pack in packs.values() for name in pack.background),
    )


def _real_words(file: Traversable) -> list[str]:
    """Words of a language that are no misspelt word of the rules; none without the file."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def _sums_of(sums: Sequence[Sum]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(sums):
        for name in dict.fromkeys(one.concepts):
            found[name].append(number)
    return dict(found)


class _Compiler:
    """Turns patterns into phrases; errors name the file and the rule."""

    def __init__(self, language: Language) -> None:
        self.spellings = {
            fold(key): tuple(fold(value).split()) for key, value in language.spellings.items()
        }
        self.sums: list[Sum] = []
        self.phrases: list[tuple[str, str, Elements]] = []
        self.cues: list[tuple[str, str, Elements]] = []
        self._concepts: dict[str, Element] = {}
        self._asked: set[str] = set()

    def add_concepts(self, file: str, pack: Pack) -> None:
        for name, patterns in pack.concepts.items():
            where = f"guard file {file}: concept {name!r}"
            if name in self._concepts:
                raise ConfigError(f"{where}: is there twice")
            self._concepts[name] = choice([e for p in patterns for e in self._compile(p, where)])

    def add_cues(self, cues: Cues) -> None:
        for name, patterns in cues:
            where = f"guard file reading.yaml: {name}"
            self.cues += ((CUE, name, e) for p in patterns for e in self._compile(p, where))

    def add_rule(self, file: str, rule: Rule) -> None:
        where = f"guard file {file}: rule {rule.id!r}"
        if not rule.patterns and not rule.combinations and not rule.sums:
            raise ConfigError(f"{where}: needs patterns, combinations or sums")
        for kind, patterns in ((RULE, rule.patterns), (UNLESS, rule.unless)):
            elements = [e for pattern in patterns for e in self._compile(pattern, where)]
            self.phrases += ((kind, rule.id, one) for one in elements)
        for combination in rule.combinations:
            names = tuple(" ".join(part.split()) for part in combination.split("+"))
            self._add_sum(Sum(rule.id, len(names), names), f"{where}: combination {combination!r}")
        for number, one in enumerate(rule.sums, start=1):
            sum_ = Sum(rule.id, one.at_least, tuple(one.of))
            self._add_sum(sum_, f"{where}: sum {number}")
        for name in rule.not_with:
            self._ask(name, f"{where}: not_with")

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

    def _add_sum(self, added: Sum, where: str) -> None:
        if not 2 <= added.at_least <= len(set(added.concepts)):
            raise ConfigError(f"{where}: needs two concepts or more")
        for name in added.concepts:
            self._ask(name, where)
        self.sums.append(added)

    def _ask(self, name: str, where: str) -> None:
        if name not in self._concepts:
            raise ConfigError(f"{where}: no concept {name!r}")
        self._asked.add(name)

    def _compile(self, pattern: str, where: str) -> list[Elements]:
        try:
            return parse(pattern, self.spellings, self._concepts)
        except PhraseError as error:
            raise ConfigError(f"{where}: pattern {pattern!r}: {error}") from error


def _words(elements: Elements) -> Iterator[Word]:
    for element in elements:
        if isinstance(element, Word):
            yield element
        elif isinstance(element, Choice):
            for option in element.options:
                yield from _words(option)
