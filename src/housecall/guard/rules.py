"""The rules of a language, compiled and ready to be looked for in a message."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from housecall.errors import ConfigError
from housecall.guard.context import CUE
from housecall.guard.packs import Cues, Language, Pack, Rule, read_packs, read_yaml
from housecall.guard.phrases import Elements, PhraseError, parse, with_words
from housecall.guard.search import Search
from housecall.guard.text import Spellings, Text, fold, read_text

RULE, UNLESS, CONCEPT = "rule", "unless", "concept"
"""Kinds of hits beside cues."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything known about one language."""

    rules: dict[str, Rule]
    combinations: tuple[tuple[str, tuple[str, ...]], ...]
    search: Search
    spellings: Spellings
    function_words: frozenset[str]
    language: str

    def read_text(self, text: str) -> Text:
        """The words of a message in the spelling of the rules."""
        return read_text(text, self.spellings)


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
    return RuleSet(
        {rule.id: rule for pack in packs.values() for rule in pack.rules},
        tuple(compiler.combinations),
        Search([*compiler.phrases, *compiler.combined_concepts()], frozenset(language.gap_stops)),
        compiler.spellings,
        frozenset(language.function_words),
        language.language,
    )


class _Compiler:
    """Turns patterns into phrases; errors name the file and the rule."""

    def __init__(self, language: Language) -> None:
        self.spellings = {
            fold(key): tuple(fold(value).split()) for key, value in language.spellings.items()
        }
        self.combinations: list[tuple[str, tuple[str, ...]]] = []
        self.phrases: list[tuple[str, str, Elements]] = []
        self._concepts: dict[str, list[Elements]] = {}

    def add_concepts(self, file: str, pack: Pack) -> None:
        for name, patterns in pack.concepts.items():
            where = f"guard file {file}: concept {name!r}"
            self._concepts[name] = [e for p in patterns for e in self._compile(p, where)]

    def add_cues(self, cues: Cues) -> None:
        for name, patterns in cues:
            self._add(CUE, name, patterns, f"guard file reading.yaml: {name}")

    def add_rule(self, file: str, rule: Rule) -> None:
        where = f"guard file {file}: rule {rule.id!r}"
        if not rule.patterns and not rule.combinations:
            raise ConfigError(f"{where}: needs patterns or combinations")
        self._add(RULE, rule.id, rule.patterns, where)
        self._add(UNLESS, rule.id, rule.unless, where)
        for combination in rule.combinations:
            names = tuple(" ".join(part.split()) for part in combination.split("+"))
            unknown = [name for name in names if name not in self._concepts]
            if unknown or len(set(names)) < 2:
                problem = f"no concept {unknown[0]!r}" if unknown else "needs two concepts"
                raise ConfigError(f"{where}: combination {combination!r}: {problem}")
            self.combinations.append((rule.id, names))

    def combined_concepts(self) -> Iterator[tuple[str, str, Elements]]:
        """Phrases of the concepts that a combination asks for."""
        for name in sorted({name for _, names in self.combinations for name in names}):
            for elements in self._concepts[name]:
                yield CONCEPT, name, elements

    def _add(self, kind: str, name: str, patterns: Collection[str], where: str) -> None:
        for pattern in patterns:
            for elements in self._compile(pattern, where):
                self.phrases.append((kind, name, elements))

    def _compile(self, pattern: str, where: str) -> list[Elements]:
        try:
            options = parse(pattern, self.spellings, self._concepts)
            return [elements for option in options for elements in with_words(option)]
        except PhraseError as error:
            raise ConfigError(f"{where}: pattern {pattern!r}: {error}") from error
