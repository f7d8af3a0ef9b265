"""A message cut into what can be kept as a fact: statements, apart from questions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4\u0060"), "'")
_END = re.compile(r"(?<=[.!?;])[\s\"')\]]+(?=\S)|\s*\n+\s*")
_ABBREVIATION = re.compile(r"\b(?:dr|mr|mrs|ms|st|vs|approx|e\.g|i\.e|mg|no|tab|tabs|sept?)\.$")
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)])\s+")
_CLAUSE = re.compile(
    r"[,;:]\s+|\s+[-\u2013\u2014]+\s+|\s+(?=(?:but|so|because|since|while|although|though|and)\b)"
)
_OPENING = re.compile(
    r"^(?:(?:and|but|so|because|since|while|as|although|though|also|now|then)\s+)+"
)
_ASKS = re.compile(
    r"^(?:(?:hi|hello|hey|ok|okay|please|well|thanks?|doctor|doc)[,!.]?\s+)*"
    r"(?:(?:what|why|how|when|where|which|who|whose)\b(?!ever)"
    r"|(?:do|does|did|can|could|should|would|will)\s+(?!not\b|have\b)\w+"
    r"|(?:is|are|am|was|were|may|might|have|has)\s+(?:i|it|this|that|these|those|there|he|she|we"
    r"|they|you|my|the|a|an|any|some|someone)\b"
    r"|any\s+(?:idea|advice|chance|reason)\b|(?:tell|explain|show)\s+(?:me|to me)\b"
    r"|wondering\s+if\b)"
)
_LONGEST = 1000  # characters of a sentence
_SUPPOSES = re.compile(r"^(?:what\s+)?(?:if|suppose|supposing|imagine|assuming|whether|unless)\b")


_PERSON = r"(?:i|he|she|we|they|my\s+\w+(?:\s+\w+)?)"
_TELLS = re.compile(
    rf"^(?:being|having|(?:with|given|despite|due to|because of) my|as an?|allergic|pregnant)\b"
    rf"|\b(?:i'm|i've|he's|she's|we're|{_PERSON}\s+(?:also\s+|now\s+|still\s+|just\s+)?"
    r"(?:am|is|are|was|were|have|has|had|take|takes|took|use|used|can't|cannot|got|get|started"
    r"|stopped|need|react|reacted|carry|might|may|could|think|believe|suspect))\b"
)
_TOLD = re.compile(
    r"\b(?:as|since|because|while|given that|now that)\s+(?P<told>(?:i|he|she|we|they|my)\b.*)"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence or clause that says something; ``plain`` is it for matching, of equal length."""

    text: str
    plain: str


def statements(message: str) -> list[Statement]:
    """What a message says, in order. Of a sentence that asks, the clauses that do not.

    "I'm allergic to penicillin, can I take amoxicillin?" gives its first half; a bare question
    or supposition gives nothing.
    """
    found: list[Statement] = []
    for sentence in sentences(message):
        plain = fold(sentence)
        if plain.endswith("?") or _ASKS.match(plain) or _SUPPOSES.match(plain):
            found += [Statement(clause, fold(clause)) for clause in _saying(sentence)]
        else:
            found.append(Statement(sentence, plain))
    return found


def sentences(message: str) -> list[str]:
    """The sentences of a message; a list under a heading ("Allergies:") is one."""
    clean = "".join(c for c in message if unicodedata.category(c) != "Cf")
    return [sentence for block in _blocks(clean) for sentence in _cut(block)]


def fold(text: str) -> str:
    """Lower case and plain apostrophes, character by character."""
    text = text.translate(_APOSTROPHES)
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _blocks(message: str) -> Iterator[str]:
    """Lines; those after one that ends with a colon are joined to it, up to an empty one."""
    heading: list[str] = []
    for line in [*message.splitlines(), ""]:
        text = _BULLET.sub("", line.strip())
        if heading and (not text or text.endswith(":")):
            yield " ".join((heading[0], ", ".join(heading[1:]))).strip()
            heading = []
        if text.endswith(":"):
            heading = [text]
        elif heading:
            heading.append(text)
        elif text:
            yield text


def _cut(block: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(block):
        if _ABBREVIATION.search(block[start : end.start()].lower()):
            continue
        yield block[start : end.start()].strip()
        start = end.end()
    rest = block[start:].strip()
    while rest:  # without any punctuation: cut somewhere, so that reading takes time in proportion
        space = rest.rfind(" ", 1, _LONGEST) if len(rest) > _LONGEST else -1
        cut = space if space > 0 else _LONGEST
        yield rest[:cut].strip()
        rest = rest[cut:].strip()


def _saying(sentence: str) -> Iterator[str]:
    """The clauses of a question that say something about someone."""
    for piece in _CLAUSE.split(sentence):
        opening = _OPENING.match(fold(piece))
        clause = piece[opening.end() :] if opening else piece
        plain = fold(clause)
        if _SUPPOSES.match(plain):
            continue
        if _ASKS.match(plain):  # "is it safe to take this now that I am pregnant?"
            if told := _TOLD.search(plain):
                yield clause[told.start("told") :].strip(" ?")
        elif _TELLS.search(plain):
            yield clause.strip(" ?")
