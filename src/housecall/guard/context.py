"""How a finding is meant: present, negated, past, about another person, supposed or asked.

After NegEx (Chapman et al., "A simple algorithm for identifying negated findings and diseases in
discharge summaries", J Biomed Inform 34, 2001) and ConText (Harkema et al., "ConText: an algorithm
for determining negation, experiencer, and temporal status from clinical reports", J Biomed Inform
42, 2009): cue words have a scope that ends at a terminator. The scopes here are shorter than
theirs, because patients punctuate less than clinicians and a missed emergency costs more than a
false alarm. The cues are in ``packs/LANGUAGE/reading.yaml``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from housecall.guard.base import Assertion
from housecall.guard.search import Hit
from housecall.guard.text import Break, Text

CUE = "cue"
"""The kind of the hits that are cues."""

_NEGATION_REACH = 6
_CLAUSE_REACH = 25
_TAKEN_BACK = {
    "not_negation": ("negation", "negation_near"),
    "not_past": ("past",),
    "not_hypothetical": ("hypothetical",),
}


class Context:
    """Reads findings in one message; a finding is a range of words."""

    def __init__(self, text: Text, hits: Iterable[Hit]) -> None:
        self._text = text
        self._cues: defaultdict[str, list[Hit]] = defaultdict(list)
        for hit in hits:
            if hit.kind == CUE:
                self._cues[hit.name].append(hit)
        for taker, names in _TAKEN_BACK.items():
            for name in names:
                self._cues[name] = _not_overlapping(self._cues[name], self._cues[taker])
        self._readings: dict[tuple[int, int], Assertion] = {}
        self._starts = {name: [cue.start for cue in cues] for name, cues in self._cues.items()}
        # commas[i]: how many stand before word i; clauses[i]: the number of its clause.
        self._commas: list[int] = list(accumulate(map(Break.COMMA.__eq__, text.breaks)))
        begins = list(map(Break.LINE.__le__, text.breaks))
        self._sentences: list[int] = list(accumulate(begins))
        for place in self._starts.get("terminators", ()):
            begins[place] = True
        self._clauses: list[int] = list(accumulate(begins))

    def read(self, start: int, end: int) -> Assertion:
        """How the finding from word ``start`` up to word ``end`` is meant."""
        place = start, end
        if place not in self._readings:  # rules and concepts share their findings
            self._readings[place] = self._read(start, end)
        return self._readings[place]

    def _read(self, start: int, end: int) -> Assertion:
        if self._negated(start, end):
            return "negated"
        if self._past(start, end):
            return "past"
        if next(self._before("hypothetical", start, _CLAUSE_REACH), None):
            return "hypothetical"
        if self._asked(start):
            return "question"
        return "other_person" if self._of_another(start, end) else "present"

    def _negated(self, start: int, end: int) -> bool:
        for cue in self._before("negation_near", start, 0):
            if not self._commas_between(cue.end, start):
                return True
        for cue in self._before("negation", start, _CLAUSE_REACH):
            if self._within("negation_stops", cue.end, start):
                continue
            near = start - cue.end <= _NEGATION_REACH
            if near and not self._commas_between(cue.end, start):
                return True
            # "no fever, chest pain or cough": an "or" says that the list is still negated.
            if self._within("list_words", cue.end, self._clause_end(cue.start)):
                return True
        after = self._after("negation_after", end, _NEGATION_REACH)
        return any(not self._commas_between(end, cue.start) for cue in after)

    def _past(self, start: int, end: int) -> bool:
        return not self._now(start, end) and (
            any(cue.end <= end for cue in self._starting("past", start, end))
            or any(self._past_reaches(cue, start) for cue in self._before_in_clause("past", start))
            or any(
                not self._commas_between(end, cue.start)
                and not self._within("past_stops", end, cue.start)
                for cue in self._after("past", end, _CLAUSE_REACH)
            )
            or self._resolved(start, end)
        )

    def _past_reaches(self, cue: Hit, start: int) -> bool:
        """Over no comma but the one of "In 2010, I had ..."."""
        commas = self._commas_between(cue.end, start)
        fronted = commas == 1 and self._text.breaks[cue.end] == Break.COMMA
        return (fronted or not commas) and not self._within("past_stops", cue.end, start)

    def _resolved(self, start: int, end: int) -> bool:
        """Found to be harmless, or over: "had fever, today he plays"; commas don't matter here."""
        if not self._cues["resolved"]:
            return False
        near = self._starting("resolved", start - _CLAUSE_REACH, end + _CLAUSE_REACH)
        return any(self._sentences[cue.start] == self._sentences[start] for cue in near)

    def _now(self, start: int, end: int) -> bool:
        before = self._before_in_clause("present", start)
        after = self._after("present", end, _CLAUSE_REACH)
        return any(not self._commas_between(cue.end, start) for cue in before) or any(
            not self._commas_between(end, cue.start) for cue in after
        )

    def _asked(self, start: int) -> bool:
        """A general question: no word after its cue is about a person who is here."""
        clause_end = self._clause_end(start)
        clause_start = bisect_left(self._clauses, self._clauses[start])
        # The finding may stand inside the cue: "is testicular torsion more common in boys".
        cues = self._starting("question", max(clause_start, start - _CLAUSE_REACH), start + 1)
        if any(not self._within("personal", min(cue.end, start), clause_end) for cue in cues):
            return True
        # Hindi and Chinese ask at the end: "of a stroke the signs what are?"
        after = self._starting("question_after", start, min(start + _CLAUSE_REACH, clause_end))
        return any(not self._within("personal", clause_start, cue.end) for cue in after)

    def _of_another(self, start: int, end: int) -> bool:
        if self._starting("other_person", start, end):
            return True
        return any(
            not self._within("first_person", cue.end, end)
            for cue in self._before_in_clause("other_person", start)
        )

    def _before_in_clause(self, name: str, start: int) -> Iterator[Hit]:
        return self._before(name, start, _CLAUSE_REACH)

    def _before(self, name: str, start: int, reach: int) -> Iterator[Hit]:
        """Cues of the same clause that end at most ``reach`` words before ``start``."""
        cues = self._cues[name]
        for place in range(bisect_left(self._starts.get(name, ()), start) - 1, -1, -1):
            cue = cues[place]
            if self._clauses[cue.start] != self._clauses[start] or start - cue.end > reach:
                return
            if cue.end <= start:
                yield cue

    def _after(self, name: str, end: int, reach: int) -> Sequence[Hit]:
        """Cues of the same clause that begin at most ``reach`` words after ``end``."""
        return self._starting(name, end, min(end + reach + 1, self._clause_end(end - 1)))

    def _starting(self, name: str, start: int, end: int) -> Sequence[Hit]:
        """Cues that begin inside a range of words."""
        starts = self._starts.get(name)
        if not starts:
            return ()
        first = bisect_left(starts, start)
        return self._cues[name][first : bisect_left(starts, end, first)]

    def _within(self, name: str, start: int, end: int) -> bool:
        return any(cue.end <= end for cue in self._starting(name, start, end))

    def _commas_between(self, end: int, start: int) -> int:
        """Commas between a range that ends at ``end`` and one that begins at ``start``."""
        return self._commas[start] - self._commas[end - 1]

    def _clause_end(self, place: int) -> int:
        return bisect_right(self._clauses, self._clauses[place])


def _not_overlapping(cues: list[Hit], takers: list[Hit]) -> list[Hit]:
    """The cues that none of ``takers`` touches."""
    taken = {place for taker in takers for place in range(taker.start, taker.end)}
    return [cue for cue in cues if taken.isdisjoint(range(cue.start, cue.end))]
