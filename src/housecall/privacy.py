"""Personal data in a text: telephone numbers, e-mail addresses, web addresses, names.

Patterns find what follows a fixed form, and names only behind words that announce one ("Dr.",
"my name is", "Mrs.", "I am" before a listed given name). A name anywhere else stays: this lowers
what a model can repeat of real people, it does not make a data set anonymous.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, get_args

Kind = Literal["email", "url", "phone", "name"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Place:
    """Where personal data stands in a text."""

    kind: Kind
    start: int
    end: int


_EMAIL = re.compile(
    r"[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])"
)
_URL = re.compile(
    r"(?:\bhttps?://|\bwww\.)[^\s<>\"'()\[\]{}]{1,2000}"
    r"|(?<![\w@.])(?:[a-z0-9][a-z0-9-]{1,62}\.){1,4}(?:com|org|net|edu|gov|info|co\.[a-z]{2})"
    r"(?:/[^\s<>\"'()\[\]{}]{0,2000})?(?![\w@])",
    re.IGNORECASE,
)
_BEHIND_URL = ".,;:!?-"
# What every address holds: a text is searched for this first, which is much faster.
_URL_SIGN = re.compile(r"://|www\.|\.(?:com|org|net|edu|gov|info|co\.)", re.IGNORECASE)

# Numbers that are written as telephone numbers are; laboratory values, ranges and dates are not.
_SEP = r"[ .-]?"
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:"
    rf"\+\d{{1,3}}{_SEP}(?:\(?\d{{1,4}}\)?{_SEP}){{1,4}}\d{{3,4}}"  # +44 20 7946 0000
    rf"|(?:1{_SEP})?(?:\(\d{{3}}\){_SEP}|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}"  # (212) 555-0100
    rf"|1{_SEP}8(?:00|33|44|55|66|77|88){_SEP}\d{{3}}{_SEP}\d{{4}}"  # 1-800-555-0100
    r"|1-8(?:00|33|44|55|66|77|88)-[0-9A-Z][0-9A-Z-]{5,11}[0-9A-Z]"  # 1-800-GET-WELL
    r"|0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}"  # 020 7946 0000
    r"|(?:0|91[ -]?)?[6-9]\d{4}[ -]?\d{5}"  # 98765 43210
    r")(?![\w/]|[.,-]\d)"
)
_DIGIT = re.compile(r"\d")
_ANNOUNCED_PHONE = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|whats ?app|fax|contact|call)(?:\s+(?:me|us))?"
    r"(?:\s+(?:no|number|num))?\.?(?:\s+(?:is|at|on))?\s*[:#-]?\s*"
    r"(\+?\d[\d ().-]{5,18}\d)(?![\w/])",
    re.IGNORECASE,
)

_PART = r"(?:[A-Z]['\u2019])?[A-Z][a-z\u00c0-\u024f]+"
_WORD = rf"{_PART}(?:-{_PART})*"
_INITIALS = r"(?:[A-Z]\.\s?){0,3}"
_SURNAME = rf"(?:\s+{_INITIALS}{_WORD}){{0,3}}"
_FULL = rf"{_INITIALS}{_WORD}{_SURNAME}"
# Not in capitals: MS is multiple sclerosis, MR a leaking valve, DR a damaged retina.
_TITLED = re.compile(rf"\b(?:Dr|Prof|Mr|Mrs|Ms|Miss)\b\.?\s*({_FULL}|[A-Z]{{3,20}}\b)")
_DOCTOR = re.compile(rf"\b(?:[Dd]octor|[Dd]r\.?)\s+({_WORD}|[a-z]+)({_SURNAME})")
_NAMED = re.compile(
    r"\b(?:(?:[Mm]y|MY|[Hh]is|[Hh]er|[Oo]ur|[Tt]heir)(?:\s+[a-z]+(?:'s|s'))?"
    r"|[Pp]atient(?:'s)?|[Dd]octor(?:'s)?)\s+(?:full\s+|first\s+|last\s+)?(?:[Nn]ame|NAME)\s*"
    rf"(?:is|was|IS|:|-|'s)\s*({_FULL}|[A-Za-z]+)"
    rf"|(?:^|\n)\s*(?:Patient\s+)?[Nn]ame\s*[:-]\s*({_FULL})"
)
# "I am Anna", never "I am diabetic": the word must be a given name that is no English word.
_INTRODUCED = re.compile(
    r"\b(?:I\s+am|I\s*['\u2019]?m|i\s+am|i\s*['\u2019]?m|[Tt]his\s+is|[Mm]yself|[Ii]t['\u2019]s)\s+"
    rf"({_WORD}|[a-z]+)({_SURNAME})"
)
_ADDRESSED = re.compile(
    rf"(?:^|[.!?\n\"\u201c]\s*)(?:Hi+|Hello|Hey|Dear)\s*,?\s+({_WORD})({_SURNAME})"
)
_SIGNED = re.compile(
    r"\b(?:[Cc]heers|[Tt]hanks|[Tt]hank\s+you)\s*[,.!-]?\s*"
    rf"({_WORD})({_SURNAME})[\s.]*$"
)
# Behind these nothing but a name and a qualification comes.
_SIGNED_FORMALLY = re.compile(
    rf"\b(?:[Rr]egards|[Ss]incerely|[Yy]ours\s+truly)\s*[,!-]?\s*({_FULL})(?=[^.!?]{{0,60}}[\s.]*$)"
)
_FUNCTION_WORDS = """
a about after all also although and any are as at be because before both but by can could
dear did do does doctor doctors dr each either ever every for from further god good google had
has have having he her here hi his hello hope how however i if in into is it its just kindly
later let madam many may me my name never no not now of office ok on once one only or other our
please regarding regards she since sir so some someone take team thank thanks that the their
them then there these they this those to today told until was we well what when where whether
which while who whom why will with would you your yes said says suggested prescribed advised
unknown removed hidden withheld
"""
_NO_NAMES = frozenset(_FUNCTION_WORDS.split())


@lru_cache(maxsize=1)
def given_names() -> frozenset[str]:
    """The names of ``data/given_names.txt`` in lower case."""
    text = (resources.files("housecall") / "data" / "given_names.txt").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(" ".join(lines).lower().split())


def find_personal(text: str) -> list[Place]:
    """Personal data in a text, in order, not overlapping."""
    found: list[Place] = []
    for place in _all(text):
        if place.start < place.end and not any(_overlap(place, other) for other in found):
            found.append(place)
    return sorted(found, key=lambda place: place.start)


def mask(text: str, places: Sequence[Place]) -> str:
    """The text with ``[phone]``, ``[email]``, ``[url]`` or ``[name]`` in the given places."""
    parts, last = [], 0
    for place in places:
        parts += [text[last : place.start], f"[{place.kind}]"]
        last = place.end
    return "".join([*parts, text[last:]])


def _all(text: str) -> Iterator[Place]:
    if "@" in text:
        yield from (Place("email", *match.span()) for match in _EMAIL.finditer(text))
    for match in _URL.finditer(text) if _URL_SIGN.search(text) else ():
        address = match.group().rstrip(_BEHIND_URL)
        yield Place("url", match.start(), match.start() + len(address))
    if _DIGIT.search(text):
        yield from _phones(text)
    yield from _names(text)


def _phones(text: str) -> Iterator[Place]:
    for match in _PHONE.finditer(text):
        yield Place("phone", *match.span())
    for match in _ANNOUNCED_PHONE.finditer(text):
        if sum(c.isdigit() for c in match[1]) >= 7 and not re.search(r"\d\.\d\b", match[1]):
            yield Place("phone", *match.span(1))


def _names(text: str) -> Iterator[Place]:
    for pattern in (_TITLED, _SIGNED_FORMALLY):
        for match in pattern.finditer(text):
            yield _until_no_name(text, *match.span(1))
    for pattern in (_DOCTOR, _INTRODUCED, _ADDRESSED, _SIGNED):
        for match in pattern.finditer(text):
            if match[1].lower() in given_names():
                yield _until_no_name(text, match.start(1), match.end(2))
    for match in _NAMED.finditer(text) if "ame" in text or "NAME" in text else ():
        group = 1 if match[1] else 2
        word = match[group]
        if word[0].isupper() or word.lower() in given_names():
            yield _until_no_name(text, match.start(group), match.end(group))


def _until_no_name(text: str, start: int, end: int) -> Place:
    """The words of a name up to the first that begins the next sentence."""
    stop = start
    for match in re.finditer(r"\S+", text[start:end]):
        if match.group().strip(".,'").lower() in _NO_NAMES:
            break
        stop = start + match.end()
    return Place("name", start, stop)


def _overlap(one: Place, other: Place) -> bool:
    return one.start < other.end and other.start < one.end
