"""The model's text, read as it streams: doses nobody named, false comfort, invented sources.

Text is read a sentence at a time. Policy ``mark`` lets it pass at once and only tells; ``replace``
puts a fixed note in the place of a bad sentence; ``cut`` ends the answer there. The last two hold a
sentence back until it is whole. What counts as bad is narrow on purpose and known in English only,
but for amounts and addresses: it is a net under the model, not a judge of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

OutputPolicy = Literal["mark", "replace", "cut"]

_SENTENCE_END = re.compile(r"[.!?\u3002\u0964][\"')\]]*(?=\s)|\n|[\u3002\u0964]")
_LONGEST_HELD = 600
"""Characters after which a sentence is read although it has not ended."""

_AMOUNT = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:-|to|\u2013)?\s*(\d+(?:[.,]\d+)?)?\s*"
    r"(mg|mcg|\u00b5g|micrograms?|milligrams?|grams?|g|ml|millilit(?:er|re)s?|iu|units?|tablets?|pills?"
    r"|capsules?|drops|puffs)\b(?!\s*/\s*d)",
    re.IGNORECASE,
)
_NO_DOSE = re.compile(
    r"\b(water|fluids?|sugar|glucose|salt|protein|fib(?:er|re)|carb)", re.IGNORECASE
)
_COMFORT = re.compile(
    r"\b(?:(?:no|not|n't|without(?: the)?) need(?:ing)?(?: for you)? to "
    r"(?:see|call|visit|go|seek|contact|worry)"
    r"|(?:do not|don't|needn't|need not) (?:have to |need to )?"
    r"(?:see|call|visit|go to|seek|worry|panic)"
    r"|not (?:an emergency|serious|dangerous)|nothing (?:serious|to worry about)"
    r"|you(?:'ll| will) be (?:fine|ok|okay|alright)|(?:can|could|should) wait (?:until|for|and see)"
    r"|it(?:'ll| will) (?:pass|go away) (?:by itself|on its own|soon))",
    re.IGNORECASE,
)
_SOURCE = re.compile(
    r"https?://\S+|\bwww\.\S+|\bdoi:?\s*10\.\d{4,}\S*|\b10\.\d{4,}/\S+|\b[A-Z][a-z]+ et al\b"
    r"|\b(?:study|trial|paper|review|guideline)s?\b[^.]{0,80}\b(?:19|20)\d\d\b"
    r"|\b(?:published|reported) in (?:the )?(?:[A-Z]\w+ )*Journal\b"
)
_NOTES = {
    "dose-not-given": "a dose that is in neither your messages nor a document",
    "false-comfort": "a sentence that plays down what may be an emergency",
    "source-not-given": "a source that was not among the documents",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence of the answer, from ``start`` to ``end`` of the answer's text as sent."""

    rule: str
    action: OutputPolicy
    start: int
    end: int


class OutputReader:
    """Reads one answer.

    ``known`` is everything that the answer may quote: the conversation and its documents.
    ``urgent`` is whether the guard has alarmed; ``offset`` is where the model's text begins.
    """

    def __init__(self, known: str, *, urgent: bool, policy: OutputPolicy, offset: int = 0) -> None:
        self._known = known.casefold()
        self._amounts = set(_amounts(known))
        self._urgent = urgent
        self._policy = policy
        self._held = ""
        self._place = offset
        self._findings: list[Finding] = []
        self.stopped = False
        """True when the answer must end here."""

    @property
    def findings(self) -> tuple[dict[str, Any], ...]:
        """What was found so far, as it goes over the wire."""
        return tuple(asdict(finding) for finding in self._findings)

    def read(self, piece: str) -> str:
        """Take a piece of the stream; returns what may be sent of the text now."""
        self._held += piece
        sent = ""
        while not self.stopped and (end := self._sentence_end()):
            sentence, self._held = self._held[:end], self._held[end:]
            sent += self._judged(sentence)
        return piece if self._policy == "mark" else sent

    def close(self) -> str:
        """The end of the stream; returns what was still held back."""
        rest, self._held = self._held, ""
        if self.stopped or not rest:
            return ""
        judged = self._judged(rest)
        return "" if self._policy == "mark" else judged

    def _sentence_end(self) -> int:
        if found := _SENTENCE_END.search(self._held):
            return found.end()
        return _LONGEST_HELD if len(self._held) > _LONGEST_HELD else 0

    def _judged(self, sentence: str) -> str:
        rule = next((name for name, fits in self._checks() if fits(sentence)), None)
        text = sentence
        if rule and self._policy != "mark":
            space = sentence[: len(sentence) - len(sentence.lstrip())]
            text = f"{space}[The safety filter took out {_NOTES[rule]}.]"
            self.stopped = self._policy == "cut"
        if rule:
            first = self._place + len(text) - len(text.lstrip())
            end = self._place + len(text.rstrip())
            self._findings.append(Finding(rule, self._policy, first, end))
        self._place += len(text)
        return text

    def _checks(self) -> Iterator[tuple[str, Callable[[str], bool]]]:
        if self._urgent:
            yield "false-comfort", lambda sentence: bool(_COMFORT.search(sentence))
        yield "dose-not-given", self._has_new_amount
        yield "source-not-given", self._has_new_source

    def _has_new_amount(self, sentence: str) -> bool:
        return not _NO_DOSE.search(sentence) and any(
            amount not in self._amounts for amount in _amounts(sentence)
        )

    def _has_new_source(self, sentence: str) -> bool:
        found = (match.group().rstrip(".,;)").casefold() for match in _SOURCE.finditer(sentence))
        return any(source not in self._known for source in found)


def _amounts(text: str) -> Iterator[tuple[float, str]]:
    """Numbers with the first letters of their unit: 500 mg and 500 milligrams are ``(500, mg)``."""
    for low, high, unit in _AMOUNT.findall(text):
        short = {"milligram": "mg", "microgram": "mcg", "\u00b5g": "mcg", "gram": "g"}
        name = unit.casefold().rstrip("s")
        name = "ml" if name.startswith("millilit") else short.get(name, name)
        for number in filter(None, (low, high)):
            yield float(number.replace(",", ".")), name
