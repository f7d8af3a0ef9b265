"""Corrections: "it was not penicillin, it was amoxicillin" changes a fact that is already known.

A word is put in another's place only where both are of one sort (two medicines, two numbers) and
the old one stands in a known fact. Everything less certain is written beside the fact in the
user's own words, so nothing is ever made up. ``_VALUE`` stands for such a word in the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from housecall.facts.base import Fact
from housecall.facts.lexicon import lexicon
from housecall.facts.rules import about, is_allergy
from housecall.facts.sentences import Statement, fold

_VALUE = "\x00"
_SMALL = r"(?:(?:to|on|in|for|about|of|the|a|an|my|any|actually|really|just) )*"
_GAP = rf"[^{_VALUE}]"

# In each pattern there are two values; ``old_first`` says which one is taken back.
_PATTERNS: tuple[tuple[re.Pattern[str], bool], ...] = tuple(
    (re.compile(pattern), old_first)
    for pattern, old_first in (
        # it was not penicillin, it was amoxicillin; not penicillin but amoxicillin
        (
            rf"(?:\bnot|n't|\bnever) {_SMALL}{_VALUE}(?: that {_GAP}{{0,30}})?"
            rf"(?:\s*[,;:.!\u2013\u2014-]+\s*|\s+(?:but|it)\b){_GAP}{{0,40}}?{_VALUE}",
            True,
        ),
        # I meant amoxicillin, not penicillin; it was amoxicillin rather than penicillin
        (
            rf"(?:^|\b(?:is|was|are|were|it's|that's|i'm|meant|mean|say|said|correction|to)\b[: ]*)"
            rf"{_GAP}{{0,12}}?{_VALUE}{_GAP}{{0,25}}?\b(?:not|rather than"
            rf"|instead of) {_SMALL}{_VALUE}",
            False,
        ),
        # I said penicillin but I meant amoxicillin; I told you penicillin, that was wrong, it is
        (
            rf"\b(?:said|wrote|told you|told|typed|put|mentioned|called it) {_GAP}{{0,15}}?{_VALUE}"
            rf"{_GAP}{{0,30}}?\b(?:meant|mean|should|wrong|it is|it's|it was|actually)\b"
            rf"{_GAP}{{0,25}}?{_VALUE}",
            True,
        ),
        (rf"{_VALUE} should (?:be|have been|read|say) {_SMALL}{_VALUE}", True),
        (
            rf"\b(?:confused|mixed up|mistook) {_SMALL}{_VALUE} (?:with|for|and) {_SMALL}{_VALUE}",
            True,
        ),
    )
)
_MEANT = re.compile(
    rf"\b(?:i (?:actually |really )?meant(?: to (?:say|write))?|correction:?|i should have said"
    rf"|sorry,? i mean) {_SMALL}{_VALUE}"
)
_NUMBER = re.compile(
    r"\b\d+(?:[.,/]\d+)*(?: ?(?P<unit>mg|mcg|\u00b5g|ug|g|ml|iu|units?|kg|weeks?|months?"
    r"|years?))?\b"
)
_TAKING = re.compile(
    r"\b(?:tak(?:e|es|en|ing)|took|on|us(?:e|ed|ing)|prescribed|gave|given|giving|started|stopped"
    r"|bought|switched|have|had|need)\b"
)
_TAKES_BACK = re.compile(
    r"\b(?:wrong about|mistaken about|ignore what|forget what|scratch that|take (?:that |it )?back"
    r"|turns? out|turned out|made a mistake|my mistake|misspoke|no longer|not any ?more|after all"
    r"|used to|stopped|quit|came off|come off|actually)\b"
)
_OTHERWISE = re.compile(
    r"\b(?:not|wasn't|isn't|weren't) (?:to |the |a |an |called |really )*(?P<old>[^\W_][\w'-]{3,})"
    r".*\b(?:it was|it's|it is|but|i meant|called|instead)\b"
)


class _Value(NamedTuple):
    text: str
    sort: str
    start: int
    end: int


def correct(facts: Sequence[Fact], said: Statement, turn: int) -> list[Fact] | None:
    """The facts as a statement corrects them; None when it corrects none of them."""
    for old, new in _changes(said, facts):
        for place in reversed(range(len(facts))):
            fact = facts[place]
            if _speak_of_the_same(fact, said) and (text := _substituted(fact.text, old, new)):
                corrected = replace(
                    fact,
                    text=f"{text} (corrected: \u201c{_bare(said)}\u201d)",
                    turn=turn,
                    names=tuple(name.text for name in lexicon().find(fold(text))),
                )
                return [*facts[:place], corrected, *facts[place + 1 :]]
    return None


def take_back(
    facts: Sequence[Fact], later: Fact | None, said: Statement, turn: int
) -> list[Fact] | None:
    """The facts with a statement written beside the one that it takes back, if there is one.

    "I'm not allergic to latex after all" must not stand apart from "I'm allergic to latex".
    ``later`` is what the statement says by itself, if that is a fact.
    """
    for place in reversed(range(len(facts))):
        if _takes_back(facts[place], later, said):
            text = f"{facts[place].text} (later, turn {turn}: \u201c{_bare(said)}\u201d)"
            return [*facts[:place], replace(facts[place], text=text), *facts[place + 1 :]]
    return None


def _takes_back(fact: Fact, later: Fact | None, said: Statement) -> bool:
    if not _same_person(fact, said):
        return False
    if otherwise := _OTHERWISE.search(said.plain):
        return (
            re.search(rf"(?<!\w){re.escape(otherwise['old'])}(?!\w)", fold(fact.text)) is not None
        )
    if later is None or not set(fact.names) & set(later.names):
        return False
    opposite = fact.kind == later.kind and fact.negated != later.negated
    return opposite or _TAKES_BACK.search(said.plain) is not None


def _changes(said: Statement, facts: Sequence[Fact]) -> Iterator[tuple[str, str]]:
    """What is taken back and what is put in its place, as they are written."""
    values = _values(said)
    veiled = _veil(said.plain, values)
    for pattern, old_first in _PATTERNS:
        for match in pattern.finditer(veiled):
            before = veiled[: match.start()].count(_VALUE)
            first, second = values[before], values[before + match.group().count(_VALUE) - 1]
            if first.sort == second.sort:
                old, new = (first, second) if old_first else (second, first)
                yield old.text, new.text
    if meant := _MEANT.search(veiled):
        new = values[veiled[: meant.end()].count(_VALUE) - 1]
        if old_text := _last_of(facts, new.sort):
            yield old_text, new.text


def _values(said: Statement) -> list[_Value]:
    """Names and numbers of a statement in order; a medicine may take an allergen's place."""
    found = [
        _Value(said.text[n.start : n.end], _sort(n.kind), n.start, n.end)
        for n in lexicon().find(said.plain)
    ]
    for number in _NUMBER.finditer(said.plain):
        if not any(value.start < number.end() and number.start() < value.end for value in found):
            sort = f"number {(number['unit'] or '').rstrip('s')}"
            found.append(_Value(said.text[slice(*number.span())], sort, *number.span()))
    return sorted(found, key=lambda value: value.start)


def _sort(kind: str) -> str:
    return "condition" if kind == "condition" else "substance"


def _last_of(facts: Sequence[Fact], sort: str) -> str | None:
    """The one value of that sort in the newest fact that has any: what "I meant" stands against."""
    for fact in reversed(facts):
        values = {v.text for v in _values(Statement(fact.text, fold(fact.text))) if v.sort == sort}
        if values:
            return values.pop() if len(values) == 1 else None
    return None


def _substituted(text: str, old: str, new: str) -> str | None:
    """``text`` with the new words for the old ones, without what an earlier correction noted."""
    text = text.partition(" (corrected: ")[0]
    match = re.search(rf"(?<!\w){re.escape(fold(old))}(?!\w)", fold(text))
    if match is None or fold(old) == fold(new):
        return None
    return text[: match.start()] + new + text[match.end() :]


def _speak_of_the_same(fact: Fact, said: Statement) -> bool:
    """Whether a correction can be meant for a fact: "I take this, not that" is no allergy's."""
    if not _same_person(fact, said):
        return False
    if is_allergy(said.plain, lexicon().find(said.plain)):
        return fact.kind == "allergy"
    return fact.kind != "allergy" or not _TAKING.search(said.plain)


def _same_person(fact: Fact, said: Statement) -> bool:
    person = about(said.plain)
    return person in ("me", fact.about) or (person in ("he", "she", "they") and fact.about != "me")


def _bare(said: Statement) -> str:
    return said.text.rstrip(" .,;!")


def _veil(plain: str, values: Sequence[_Value]) -> str:
    pieces: list[str] = []
    end = 0
    for value in values:
        pieces += [plain[end : value.start], _VALUE]
        end = value.end
    return "".join([*pieces, plain[end:]])
