"""All rows of a data set: their texts on disk, and a few hundred bytes of each in memory."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from housecall.data_report import RowFacts
from housecall.duplicates import SignatureList, groups, merge
from housecall.sieve import Kept, Rejected, as_line
from housecall.spool import Spool

_LIKE = "nearly the same as an earlier row"


class RowStore:
    """All rows in the order of the source; a kept row is named by its place among the kept ones.

    ``places`` are the rows that stay, ``reasons`` count the others, ``facts`` hold what the report
    tells of each kept row.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.facts = RowFacts()
        self.reasons: Counter[str] = Counter()
        self.places: list[int] = []
        self._rejected = array("L")
        self._kept = array("L")
        self._like: dict[int, int] = {}
        self._prompts: Counter[str | None] = Counter()
        self._questions = SignatureList()
        self._answers = SignatureList()

    def add(self, row: Kept | Rejected) -> None:
        """Put the next row on disk."""
        number = self.spool.add(row.line())
        if isinstance(row, Rejected):
            self._rejected.append(number)
            self.reasons[row.reason] += 1
            return
        self.places.append(len(self._kept))
        self._kept.append(number)
        self.facts.add(row)
        self._questions.add(row.text("user"))
        self._answers.add(row.text("assistant"))
        self._prompts[row.text("system") or None] += 1

    def drop_duplicates(self, threshold: float) -> None:
        """Reject rows that are nearly the same as an earlier one."""
        # The least of two signatures is that of both texts together.
        whole = np.minimum(self._questions.matrix(), self._answers.matrix())
        firsts = groups(whole, threshold)
        self.places = [place for place in self.places if firsts[place] == place]
        self._like = {
            self._kept[place]: self.facts.numbers[first]
            for place, first in enumerate(firsts.tolist())
            if first != place
        }
        if self._like:
            self.reasons[_LIKE] += len(self._like)

    def clusters(self, threshold: float) -> NDArray[np.int64]:
        """For each kept row the first row of its cluster: like questions, or like answers."""
        questions, answers = self._questions.matrix(), self._answers.matrix()
        chosen = np.array(self.places)
        found = merge(groups(questions[chosen], threshold), groups(answers[chosen], threshold))
        whole = np.zeros(len(self._kept), dtype=np.int64)
        whole[chosen] = chosen[found]
        return whole

    def lines(self, places: Iterable[int]) -> Iterator[str]:
        """Kept rows as they stand in a split."""
        return (self.spool.read(self._kept[place]) for place in places)

    def rejected_lines(self) -> Iterator[str]:
        """All rejected rows in the order of the source."""
        for number in sorted([*self._rejected, *self._like]):
            line = self.spool.read(number)
            if number in self._like:
                row = json.loads(line)
                detail = f"row {self._like[number]}"
                line = as_line({"row": row.pop("row"), "reason": _LIKE, "detail": detail, **row})
            yield line

    def system_prompt(self) -> str | None:
        """What most rows start with: the model has learned to answer behind it."""
        return self._prompts.most_common(1)[0][0]
