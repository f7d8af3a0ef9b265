"""Draws the facts out of the turns of a conversation, and keeps the list of them true."""

from __future__ import annotations

import re
from collections.abc import Sequence

from housecall.facts.base import PRIORITY, Fact, Kind
from housecall.facts.corrections import correct, take_back
from housecall.facts.lexicon import lexicon
from housecall.facts.rules import about, is_negated, kinds
from housecall.facts.sentences import Statement, fold, sentences, statements

_LONGEST_TEXT = 240  # characters of one fact
_LONGEST_OF_PAIR = 60
_LONGEST_QUESTION = 120
_LONGEST_REPLY = 160

_QUESTIONS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("allergy", re.compile(r"\ball?erg|\breact(?:ion|ed)? to\b|\bintoleran")),
    ("pregnancy", re.compile(r"\bpregnan|\bbreast-?feed|\bexpecting\b|\bnursing\b")),
    (
        "medicine",
        re.compile(
            r"\b(?:medications?|medicines?|meds|drugs?|tablets?|pills?|prescriptions?|supplements?)\b"
        ),
    ),
    (
        "condition",
        re.compile(
            r"\b(?:conditions?|medical history|diagnos\w+|chronic|illness(?:es)?|diseases?"
            r"|health (?:problems?|issues?)|surger(?:y|ies)|operations?)\b"
        ),
    ),
    ("age", re.compile(r"\bhow old\b|\byour age\b|\bdate of birth\b")),
    ("date", re.compile(r"\bhow long\b|\bsince when\b|\bwhen (?:did|was|were|is|do)\b")),
)


def draw(facts: Sequence[Fact], message: str, turn: int, *, asked: str = "") -> list[Fact]:
    """The known facts and those that a user's message adds to them or corrects.

    ``asked`` is what the assistant said just before: "Yes, penicillin." means nothing without the
    question that it answers. What an assistant says is never a fact by itself.
    """
    known = list(facts)
    drawn: list[Fact] = []
    said_here = statements(message)
    place = 0
    while place < len(said_here):
        said = said_here[place]
        place += 1
        for whole in _alone_or_with_next(said_here, place - 1):
            if corrected := correct(known, whole, turn):
                known = corrected
                place += whole is not said
                break
        else:
            fact = read(said, turn)
            taken_back = take_back(known, fact, said, turn)
            if taken_back:
                known = taken_back
            elif fact:
                drawn.append(fact)
                known = _added(known, fact)
    reply = _reply(message, turn, asked, {fact.kind for fact in drawn})
    if reply is None:
        return known
    # The reply is kept as a whole, with its question: its parts would be said twice.
    return _added([fact for fact in known if fact not in drawn], reply)


def _alone_or_with_next(said: Sequence[Statement], place: int) -> list[Statement]:
    """A statement, and it with a short one after it: "It was not latex. It was nickel."."""
    alone = said[place]
    pair = said[place : place + 2]
    if len(pair) < 2 or max(len(one.text) for one in pair) > _LONGEST_OF_PAIR:
        return [alone]
    return [
        alone,
        Statement(" ".join(one.text for one in pair), " ".join(one.plain for one in pair)),
    ]


def read(said: Statement, turn: int) -> Fact | None:
    """The fact in one statement, of the most important kind that it holds."""
    names = lexicon().find(said.plain)
    held = kinds(said.plain, names)
    kind = next((kind for kind in PRIORITY if kind in held), None)
    if kind is None:
        return None
    return Fact(
        kind=kind,
        text=_shortened(said),
        turn=turn,
        names=tuple(dict.fromkeys(name.text for name in names)),
        negated=is_negated(said.plain, kind, names),
        about=about(said.plain),
    )


def _reply(message: str, turn: int, asked: str, found: set[Kind]) -> Fact | None:
    """A short reply to a question about such a fact, kept with the question."""
    questions = [sentence for sentence in sentences(asked) if sentence.endswith("?")]
    words = " ".join(message.split())
    if not questions or not words or words.endswith("?") or len(words) > _LONGEST_REPLY:
        return None
    question = questions[-1]
    for kind, pattern in _QUESTIONS:
        if kind not in found and pattern.search(fold(question)):
            names = tuple(name.text for name in lexicon().find(fold(words)))
            shown = question[-_LONGEST_QUESTION:]
            return Fact(kind, f"Asked \u201c{shown}\u201d: \u201c{words}\u201d", turn, names)
    return None


def _added(facts: list[Fact], fact: Fact) -> list[Fact]:
    """The same words said again are no news; the first turn that said them stays."""
    same = any(fold(known.text) == fold(fact.text) for known in facts)
    return facts if same else [*facts, fact]


def _shortened(said: Statement) -> str:
    """The statement, or of a very long one what stands around its first sign of a fact."""
    text = said.text.strip(" .,;")
    if len(text) <= _LONGEST_TEXT:
        return text
    clauses = re.split(r"(?<=[,;:])\s+|\s+(?=(?:and|but|so|because)\b)", text)
    kept: list[str] = []
    for clause in clauses:
        plain = fold(clause)
        if kinds(plain, lexicon().find(plain)):
            kept.append(clause.strip(" ,;"))
    return (" \u2026 ".join(kept) or text)[:_LONGEST_TEXT]
