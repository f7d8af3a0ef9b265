"""Which rules a message matches, and how each match is meant."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from housecall.guard.base import Assertion, GuardMatch
from housecall.guard.context import Context
from housecall.guard.packs import Rule
from housecall.guard.places import Places
from housecall.guard.rules import CONCEPT, RULE, UNLESS, RuleSet, Sum
from housecall.guard.search import Hit
from housecall.guard.text import Token

ALARMING: frozenset[Assertion] = frozenset({"present", "other_person"})
"""A finding in someone else who has it now is an emergency too."""

SUM_REACH = 40
"""Words between the parts of a combination: in a long history any two symptoms meet by chance."""

SILENCE_REACH = 30
"""Words between a finding and a word that its rule is not read with (fiction, animals, devices):
people in trouble mention films, too."""

CONTEXT_REACH = 60
"""Words around a finding in which cues are looked for; none of the scopes is wider."""


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    """A rule at a range of words."""

    start: int
    end: int
    rule: str
    assertion: Assertion
    parts: tuple[tuple[int, int], ...] = ()
    """The ranges that were found in it, where they are not all of it."""

    def words(self) -> set[int]:
        """The numbers of the words that were found."""
        ranges = self.parts or ((self.start, self.end),)
        return {word for start, end in ranges for word in range(start, end)}


class Matcher:
    """Reads one message with a set of rules."""

    def __init__(self, rules: RuleSet, message: str, tokens: Sequence[Token]) -> None:
        self._rules = rules
        self._text = rules.read(message, tokens)
        self._places = Places(self._text)
        self._hits = rules.search.find(self._places)
        self._by_concept: defaultdict[str, list[Hit]] = defaultdict(list)
        for hit in self._hits:
            if hit.kind == CONCEPT:
                self._by_concept[hit.name].append(hit)

    @cached_property
    def _context(self) -> Context:
        """Made when the first finding is read: most messages have none."""
        near = self._places.of(
            (hit.start - CONTEXT_REACH, hit.end + CONTEXT_REACH) for hit in self._hits
        )
        return Context(self._text, self._rules.cues.find(self._places, near))

    def concepts(self) -> frozenset[str]:
        """The concepts that the message asserts."""
        return frozenset(
            name
            for name, hits in self._by_concept.items()
            if any(self._asserted(hit) for hit in hits)
        )

    def matches(self, earlier: Collection[str] = frozenset()) -> list[GuardMatch]:
        """All matches in order; concepts asserted ``earlier`` may complete a combination."""
        found = [
            _Found(hit.start, hit.end, hit.name, self._read(self._rules.rules[hit.name], hit))
            for hit in self._hits
            if hit.kind == RULE
        ]
        here = Counter(n for name in self._by_concept for n in self._rules.sums_of.get(name, ()))
        before = Counter(n for name in earlier for n in self._rules.sums_of.get(name, ()))
        for number in sorted(here):
            one = self._rules.sums[number]
            enough = here[number] + before[number] >= one.at_least
            if enough and (combined := self._sum(one, earlier)):
                found.append(combined)
        return [self._match(one) for one in _widest(self._not_taken_back(found))]

    def _asserted(self, hit: Hit) -> bool:
        return hit.flood or self._read_concept(None, hit) in ALARMING

    def _read(self, rule: Rule, hit: Hit) -> Assertion:
        if hit.flood:  # said again and again: not all places were read
            return "present"
        assertion = self._context.read(hit.start, hit.end)
        return "present" if assertion in rule.not_lowered_by else assertion

    def _read_concept(self, rule: Rule | None, hit: Hit) -> Assertion:
        assertion = self._context.read(hit.start, hit.end)
        if assertion == "past" and hit.name in self._rules.background:
            return "present"
        lowered_by_nothing = rule is not None and assertion in rule.not_lowered_by
        return "present" if lowered_by_nothing or hit.flood else assertion

    def _sum(self, added: Sum, earlier: Collection[str]) -> _Found | None:
        """One match over the parts that stand near each other; it alarms when enough of them do."""
        here = [name for name in added.concepts if name in self._by_concept]
        before = sum(name in earlier for name in added.concepts if name not in here)
        needed = added.at_least - before
        if not here or len(here) < needed:
            return None
        hits = sorted((h for name in here for h in self._by_concept[name]), key=lambda h: h.start)
        if not _nearest(hits, max(1, needed)):
            return None
        rule = self._rules.rules[added.rule]
        read = {hit: self._read_concept(rule, hit) for hit in hits}
        alarming = _nearest([hit for hit in hits if read[hit] in ALARMING], max(1, needed))
        parts = alarming or _nearest(hits, max(1, needed))
        readings = [read[part] for part in parts]
        lowered = [reading for reading in readings if reading not in ALARMING]
        assertion = lowered[0] if lowered else max(readings)  # present over other_person
        ranges = tuple((part.start, part.end) for part in parts)
        return _Found(parts[0].start, max(p.end for p in parts), rule.id, assertion, ranges)

    def _not_taken_back(self, found: Iterable[_Found]) -> Iterable[_Found]:
        taken: defaultdict[str, set[int]] = defaultdict(set)
        for hit in self._hits:
            if hit.kind == UNLESS:
                taken[hit.name].update(range(hit.start, hit.end))
        for one in found:
            if taken[one.rule].isdisjoint(one.words()):
                lowered = one.assertion in ALARMING and self._silenced(one)
                yield replace(one, assertion="hypothetical") if lowered else one

    def _silenced(self, found: _Found) -> bool:
        """Whether a word of the rule's ``not_with`` stands near: "in my novel she faints"."""
        return any(
            hit.start - found.end <= SILENCE_REACH and found.start - hit.end <= SILENCE_REACH
            for name in self._rules.rules[found.rule].not_with
            for hit in self._by_concept.get(name, ())
        )

    def _match(self, found: _Found) -> GuardMatch:
        start, end = self._text.span(found.start, found.end)
        text = self._text.original[start:end]
        return GuardMatch(found.rule, text, start, end, found.assertion)


def _nearest(hits: Sequence[Hit], count: int) -> list[Hit]:
    """The first hits of ``count`` concepts that stand within ``SUM_REACH`` words of each other."""
    for first, hit in enumerate(hits):
        found: dict[str, Hit] = {}
        for other in hits[first:]:
            if other.start - hit.start > SUM_REACH:
                break
            found.setdefault(other.name, other)
            if len(found) == count:
                return list(found.values())
    return []


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
