"""Which rules a message matches, and how each match is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from housecall.guard.base import Assertion, GuardMatch
from housecall.guard.context import Context
from housecall.guard.packs import Rule
from housecall.guard.rules import CONCEPT, RULE, UNLESS, RuleSet
from housecall.guard.search import Hit

ALARMING: frozenset[Assertion] = frozenset({"present", "other_person"})
"""A finding in someone else who has it now is an emergency too."""


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    """A rule at a range of words."""

    start: int
    end: int
    rule: str
    assertion: Assertion


class Matcher:
    """Reads one message with a set of rules."""

    def __init__(self, rules: RuleSet, message: str) -> None:
        self._rules = rules
        self._text = rules.read_text(message)
        self._hits = rules.search.find(self._text)
        self._context = Context(self._text, self._hits)

    @property
    def words(self) -> Sequence[str]:
        """The words of the message."""
        return self._text.words

    def concepts(self) -> frozenset[str]:
        """The concepts that the message asserts."""
        return frozenset(
            hit.name
            for hit in self._hits
            if hit.kind == CONCEPT and self._context.read(hit.start, hit.end) in ALARMING
        )

    def matches(self, earlier: Collection[str] = frozenset()) -> list[GuardMatch]:
        """All matches in order; concepts asserted ``earlier`` may complete a combination."""
        found = [
            _Found(hit.start, hit.end, hit.name, self._read(self._rules.rules[hit.name], hit))
            for hit in self._hits
            if hit.kind == RULE
        ]
        found.extend(self._combined(earlier))
        return [self._match(one) for one in _widest(self._not_taken_back(found))]

    def _read(self, rule: Rule, hit: Hit) -> Assertion:
        assertion = self._context.read(hit.start, hit.end)
        return "present" if assertion in rule.not_lowered_by else assertion

    def _combined(self, earlier: Collection[str]) -> Iterable[_Found]:
        by_concept: defaultdict[str, list[Hit]] = defaultdict(list)
        for hit in self._hits:
            if hit.kind == CONCEPT:
                by_concept[hit.name].append(hit)
        for rule_id, names in self._rules.combinations:
            here = [name for name in names if name in by_concept]
            if here and all(name in by_concept or name in earlier for name in names):
                yield self._combination(self._rules.rules[rule_id], here, by_concept)

    def _combination(
        self, rule: Rule, names: Iterable[str], by_concept: Mapping[str, list[Hit]]
    ) -> _Found:
        """One match over all its parts: it alarms when each part does."""
        parts = [self._best(rule, by_concept[name]) for name in names]
        readings = [self._read(rule, part) for part in parts]
        lowered = [reading for reading in readings if reading not in ALARMING]
        assertion = lowered[0] if lowered else max(readings)  # "present" over "other_person"
        start, end = min(part.start for part in parts), max(part.end for part in parts)
        return _Found(start, end, rule.id, assertion)

    def _best(self, rule: Rule, hits: Sequence[Hit]) -> Hit:
        return next((hit for hit in hits if self._read(rule, hit) in ALARMING), hits[0])

    def _not_taken_back(self, found: Iterable[_Found]) -> Iterable[_Found]:
        taken: defaultdict[str, set[int]] = defaultdict(set)
        for hit in self._hits:
            if hit.kind == UNLESS:
                taken[hit.name].update(range(hit.start, hit.end))
        return (one for one in found if taken[one.rule].isdisjoint(range(one.start, one.end)))

    def _match(self, found: _Found) -> GuardMatch:
        start, end = self._text.span(found.start, found.end)
        text = self._text.original[start:end]
        return GuardMatch(found.rule, text, start, end, found.assertion)


def _widest(found: Iterable[_Found]) -> list[_Found]:
    """In order, without matches that lie inside another of the same rule and reading."""
    kept: list[_Found] = []
    ends: dict[tuple[str, Assertion], int] = {}
    for one in sorted(found, key=lambda one: (one.start, -one.end, one.rule)):
        key = one.rule, one.assertion
        if one.end > ends.get(key, -1):
            ends[key] = one.end
            kept.append(one)
    return kept
