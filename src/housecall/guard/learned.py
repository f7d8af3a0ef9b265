"""The second stage: a linear reader learned from messages written for this project.

It weighs the words of a message, pairs of neighbours, pairs with a gap, and pieces of words, and
adds the weights up; nothing else. So it runs in plain Python, gives the same answer everywhere and
can name the words that weighed most. What a rule found is one more weight: so an alarm is raised
that no rule raised, and one is withdrawn that rules raised on words that weigh plainly less. The
weights are in ``packs/LANGUAGE/learned.json``, made by ``benchmarks/guard_learned.py``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from itertools import accumulate, islice, repeat
from operator import add
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from housecall.errors import ConfigError
from housecall.guard.features import (
    GAP,
    PlayedDown,
    beginnings_of,
    ends_of,
    pieces,
    words_to_weigh,
)
from housecall.guard.packs import Strict
from housecall.guard.text import Token
from housecall.guard.weights import Table, from_table

SMOOTHING = 5
"""Added to the number of words before its root is taken: one word alone says little."""

SHORTEST_ALARM = 5
"""Words of a message from which on it may alarm where no rule does."""

_SHORTEST_LOWERED = 8
"""The same where rules found something and read it as denied, past or asked."""

_LEAST_DIFFERENT = 20
"""Words for each different one from which on a message is no sentence that could be weighed."""

_WINDOW, _STEP = 120, 40
"""Words of a message longer than both that are read together: the longest that it learned from."""

LONGEST_CRISIS = 60
"""Words of a message up to which the crisis sum alarms by itself: in longer ones, most of them calm
stories, it did so on 98 of 1,164 of iCliniq's real questions."""

_SPAN = 8


class LearnedFile(Strict):
    """``learned.json``: weights in units of ``scale``, and the sums at which something is done.

    An alarm of the rules is withdrawn from ``shortest_doubted`` words on: fewer say too little.
    The crisis sum tells crises from all other messages: from ``crisis_alarm_at`` on it alarms by
    itself (crises are told in other words than emergencies, and one sum for both misses more of
    either); from ``crisis_from`` on an alarm is a crisis.
    """

    trained_on: str
    scale: float = Field(gt=0)
    bias: float
    crisis_scale: float = Field(gt=0)
    crisis_bias: float
    crisis_from: float
    crisis_alarm_at: float
    alarm_at: float
    shortest_doubted: int = Field(ge=1)
    rule_weights: dict[Literal["emergency", "crisis", "lowered"], float] = Field(min_length=3)
    weights: Table
    crisis_weights: Table


@dataclass(frozen=True, slots=True)
class Reading:
    """What the second stage makes of a message; the words that weighed most are a range."""

    verdict: Literal["alarm", "harmless"]
    score: float
    start: int
    end: int
    crisis: bool = False
    """Whether it is a crisis, if it is an alarm."""


class _Word(NamedTuple):
    """What a word brings to the sum by itself, and what it shares with its neighbours."""

    alone: int
    """Its own weight and that of its pieces."""
    end: int
    """Pieces that reach from it to the seam with the next word."""
    beginning: int
    """Pieces that reach into it from the seam with the word before."""
    over_seam: tuple[Mapping[str, int], ...]
    """Pieces over the seam that begin in it, by their part in the next word."""
    parts: tuple[str, ...]
    """What pieces over the seam with the word before may have of it."""


class _Weights:
    """One set of weights, and the running sums that it gives the words of a message."""

    def __init__(self, table: Table) -> None:
        self._weights = from_table(table)
        self._word = lru_cache(maxsize=20_000)(self._weigh_word)
        self._shared = lru_cache(maxsize=50_000)(self._weigh_two)

    def sums(self, words: Sequence[str]) -> list[int]:
        """Running sums of the weights; what two words share belongs to the first of them."""
        alone = [word.alone for word in map(self._word, words)]
        shared = [*map(self._shared, words, islice(words, 1, None)), 0]
        weighed = list(map(add, alone, shared))
        for place, distant in enumerate(map(self._weights.distant.get, words)):
            if distant:
                for other in words[place + 2 : place + 1 + GAP]:
                    if other in distant:
                        weighed[place] += distant[other]
        return [0, *accumulate(weighed)]

    def _weigh_word(self, word: str) -> _Word:
        ends, parts, over_seam = ends_of(word), beginnings_of(word), self._weights.over_seam
        return _Word(
            self._sum((word, *pieces(word))),
            self._sum(f"{end}_" for end in ends),
            self._sum(f"_{part}" for part in parts),
            tuple(over_seam[end] for end in ends if end in over_seam),
            parts,
        )

    def _weigh_two(self, word: str, other: str) -> int:
        first, second = self._word(word), self._word(other)
        shared = first.end + second.beginning
        if neighbours := self._weights.neighbours.get(word):
            shared += neighbours.get(other, 0)
        for by_part in first.over_seam:
            for part in second.parts:
                if part in by_part:
                    shared += by_part[part]
        return shared

    def _sum(self, names: Iterable[str]) -> int:
        return sum(map(self._weights.alone.get, names, repeat(0)))


class LearnedReader:
    """Reads messages of one language with its weights; ``played_down`` are not weighed."""

    def __init__(self, file: LearnedFile, played_down: PlayedDown) -> None:
        self._file = file
        self._played_down = played_down
        self._weights = _Weights(file.weights)
        self._crisis_weights = _Weights(file.crisis_weights)

    def read(
        self,
        tokens: Sequence[Token],
        found: Collection[Literal["emergency", "crisis"]] = (),
        lowered: bool = False,
    ) -> Reading:
        """The verdict; ``found`` are the levels that rules raise.

        ``lowered``: rules found something and read it as denied, past or asked.
        """
        words, places = words_to_weigh(tokens, self._played_down)
        if not words:
            return Reading("harmless", 0.0, 0, 0)
        file = self._file
        total = _Total.of(self._weights.sums(words), file.bias, file.scale)
        bonus = max((file.rule_weights[level] for level in found), default=0.0)
        less = file.rule_weights["lowered"] * lowered
        alarms = total.score + bonus + less >= file.alarm_at
        shortest = _SHORTEST_LOWERED if lowered else SHORTEST_ALARM
        too_few = len(words) < (file.shortest_doubted if found else shortest)
        if too_few or len(words) > _LEAST_DIFFERENT * len(set(words)):  # one word again and again
            alarms = bool(found)
        else:
            if not alarms and len(words) <= LONGEST_CRISIS:
                crisis = self._crisis(words)
                if alarms := crisis.score + less >= file.crisis_alarm_at:
                    total = crisis
            # Of a long message no window is harmless enough for all the others.
            alarms = alarms or (bool(found) and len(words) > _WINDOW + _STEP)
        start, end = total.heaviest()
        return Reading(
            "alarm" if alarms else "harmless",
            total.score,
            places[start],
            places[end - 1] + 1,
            alarms and self._crisis(words[total.first : total.last]).score >= file.crisis_from,
        )

    def _crisis(self, words: Sequence[str]) -> _Total:
        sums = self._crisis_weights.sums(words)
        return _Total.of(sums, self._file.crisis_bias, self._file.crisis_scale)


@dataclass(frozen=True, slots=True)
class _Total:
    """What a message weighs by one set of weights, and the words from ``first`` to ``last``.

    The words are all of them, of a long message those of its heaviest window.
    """

    score: float
    first: int
    last: int
    sums: Sequence[int]

    @classmethod
    def of(cls, sums: Sequence[int], bias: float, scale: float) -> _Total:
        weight, first, last = _highest(sums)
        return cls(bias + scale * weight, first, last, sums)

    def heaviest(self) -> tuple[int, int]:
        """The run of at most eight words that weighs most."""
        size, sums = min(_SPAN, self.last - self.first), self.sums
        starts = range(self.first, self.last - size + 1)
        start = max(starts, key=lambda place: sums[place + size] - sums[place])
        return start, start + size


def load_learned(file: Traversable, played_down: Iterable[str]) -> LearnedReader:
    """The reader with the weights of a file. Raises ConfigError."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return LearnedReader(LearnedFile.model_validate(raw), PlayedDown(played_down))
    except (OSError, ValueError, ValidationError) as error:
        what = " ".join(str(error).split())[:200]
        raise ConfigError(f"guard file {file.name}: {what}: reinstall housecall") from error


def _highest(sums: Sequence[int]) -> tuple[float, int, int]:
    """The score of the message, of a long one its highest window's, and the range it is of."""
    count = len(sums) - 1
    if count <= _WINDOW + _STEP:
        return sums[count] / (count + SMOOTHING) ** 0.5, 0, count
    starts = [*range(0, count - _WINDOW, _STEP), count - _WINDOW]
    start = max(starts, key=lambda start: sums[start + _WINDOW] - sums[start])
    score = (sums[start + _WINDOW] - sums[start]) / (_WINDOW + SMOOTHING) ** 0.5
    return score, start, start + _WINDOW
