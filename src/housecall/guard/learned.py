"""The second stage: a linear reader learned from messages written for this project.

It weighs the words of a message, pairs of neighbours, pairs with a gap, and pieces of words, and
adds the weights up; nothing else. So it runs in plain Python, gives the same answer everywhere and
can name the words that weighed most. What a rule found is one more weight: so an alarm is raised
that no rule raised, and one is withdrawn that rules raised on words that weigh plainly less. The
weights are in ``packs/LANGUAGE/learned.json``, made by ``benchmarks/guard_learned.py``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from itertools import accumulate, islice, repeat, zip_longest
from typing import Literal

from pydantic import Field, ValidationError

from housecall.errors import ConfigError
from housecall.guard.packs import Strict
from housecall.guard.text import Token, split
from housecall.guard.weights import Table, from_table

SMOOTHING = 5
"""Added to the number of words before its root is taken: one word alone says little."""

SHORTEST_ALARM = 5
"""Words of a message from which on it may alarm where no rule does."""

_SHORTEST_LOWERED = 8
"""The same where rules found something and read it as denied, past or asked."""

_LEAST_DIFFERENT = 20
"""Words for each different one from which on a message is no sentence that could be weighed."""

_GAP = 5
_PIECES = (3, 4, 5)
_SEAM = max(_PIECES) - 1
_LONGEST_WORD = 24
_WINDOW, _STEP = 120, 40
"""Words of a message longer than both that are read together: the longest that it learned from."""

_SPAN = 8
_NUMBERS = ((4, "#s"), (13, "#w"), (36, "#y"), (43, "#t"), (100, "#h"), (106, "#f"), (400, "#k"))
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


class LearnedFile(Strict):
    """``learned.json``: weights in units of ``scale``, and the sums at which something is done.

    An alarm of the rules is withdrawn from ``shortest_doubted`` words on: fewer say too little.
    """

    trained_on: str
    scale: float = Field(gt=0)
    bias: float
    crisis_scale: float = Field(gt=0)
    crisis_bias: float
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
    said: Sequence[str] = ()
    """The words that the score is of."""


class PlayedDown:
    """Words that play a message down ("probably nothing, but"): they must never lower it."""

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        by_first: defaultdict[str, list[list[str]]] = defaultdict(list)
        for phrase in phrases:
            words = [_plain(token.word) for token in split(phrase)]
            by_first[words[0]].append(words)
        self._by_first = dict(by_first)

    def places(self, words: Sequence[str]) -> Iterator[int]:
        """Where they stand among ``words``."""
        firsts, end = self._by_first, 0
        for place in [place for place, word in enumerate(words) if word in firsts]:
            for phrase in firsts[words[place]] if place >= end else ():
                if words[place : place + len(phrase)] == phrase:
                    end = place + len(phrase)
                    yield from range(place, end)
                    break


class LearnedReader:
    """Reads messages of one language with one set of weights; ``played_down`` are not weighed."""

    def __init__(self, file: LearnedFile, played_down: PlayedDown) -> None:
        self._file = file
        self._played_down = played_down
        self._weights, self._gaps = _gaps_apart(from_table(file.weights))
        self._crisis_weights = from_table(file.crisis_weights)
        self._weigh = lru_cache(maxsize=20_000)(self._weigh_word)
        self._weigh_neighbours = lru_cache(maxsize=50_000)(self._weigh_two)
        self._weigh_ends = lru_cache(maxsize=50_000)(self._weigh_seam)

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
        sums = self._sums(words)
        score, first, last = _highest(sums)
        score = self._file.bias + self._file.scale * score
        start, end = _heaviest(sums, first, last)
        by_rules = self._file.rule_weights
        bonus = max((by_rules[level] for level in found), default=0.0)
        alarms = score + bonus + by_rules["lowered"] * lowered >= self._file.alarm_at
        shortest = _SHORTEST_LOWERED if lowered else SHORTEST_ALARM
        too_few = len(words) < (self._file.shortest_doubted if found else shortest)
        if too_few or len(words) > _LEAST_DIFFERENT * len(set(words)):  # one word again and again
            alarms = bool(found)
        elif len(words) > _WINDOW + _STEP:  # no window is harmless enough for all the others
            alarms = alarms or bool(found)
        return Reading(
            "alarm" if alarms else "harmless",
            score,
            places[start],
            places[end - 1] + 1,
            words[first:last],
        )

    def level(self, reading: Reading) -> Literal["emergency", "crisis"]:
        """Which of the two an alarm is."""
        weights, words = self._crisis_weights, reading.said
        total = sum(weights.get(feature, 0) for feature in features(words))
        total = total / (len(words) + SMOOTHING) ** 0.5
        crisis = self._file.crisis_bias + self._file.crisis_scale * total > 0
        return "crisis" if crisis else "emergency"

    def _sums(self, words: Sequence[str]) -> list[int]:
        """Running sums of the weights; what two words share belongs to the first of them."""
        alone = map(self._weigh, words)
        pairs = map(self._weigh_neighbours, words, islice(words, 1, None))
        weighed = list(map(sum, zip_longest(alone, pairs, fillvalue=0)))
        for place, distant in enumerate(map(self._gaps.get, words)):
            if distant:
                for other in words[place + 2 : place + 1 + _GAP]:
                    if other in distant:
                        weighed[place] += distant[other]
        return [0, *accumulate(weighed)]

    def _weigh_word(self, word: str) -> int:
        return sum(map(self._weights.get, (word, *pieces(word)), repeat(0)))

    def _weigh_two(self, word: str, other: str) -> int:
        return self._weights.get(f"{word} {other}", 0) + self._weigh_ends(
            word[-_SEAM:], other[:_SEAM]
        )

    def _weigh_seam(self, end: str, beginning: str) -> int:
        return sum(map(self._weights.get, pieces_between(end, beginning), repeat(0)))


def _gaps_apart(weights: dict[str, int]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """All other weights, and those of pairs with a gap by their first word: most have none."""
    gaps: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name in [name for name in weights if "~" in name]:
        first, _, other = name.partition("~")
        gaps[first][other] = weights.pop(name)
    return weights, dict(gaps)


def load_learned(file: Traversable, played_down: Iterable[str]) -> LearnedReader:
    """The reader with the weights of a file. Raises ConfigError."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return LearnedReader(LearnedFile.model_validate(raw), PlayedDown(played_down))
    except (OSError, ValueError, ValidationError) as error:
        what = " ".join(str(error).split())[:200]
        raise ConfigError(f"guard file {file.name}: {what}: reinstall housecall") from error


def words_to_weigh(tokens: Sequence[Token], played_down: PlayedDown) -> tuple[list[str], list[int]]:
    """The words as they are weighed, and which token each was."""
    words = [word if word.isalpha() else _plain(word) for word, *_ in tokens]
    skipped = set(played_down.places(words))
    if not skipped:
        return words, list(range(len(words)))
    places = [place for place in range(len(words)) if place not in skipped]
    return [words[place] for place in places], places


def features(words: Sequence[str]) -> Iterator[str]:
    """Everything that is weighed in a message."""
    for place, word in enumerate(words):
        yield word
        yield from pieces(word)
        following = words[place + 1 : place + 1 + _GAP]
        if following:
            yield f"{word} {following[0]}"
            yield from pieces_between(word, following[0])
            for other in following[1:]:
                yield f"{word}~{other}"


def pieces(word: str) -> list[str]:
    """Runs of three to five characters in a word with its ends marked."""
    marked = f"<{word[:_LONGEST_WORD]}>"
    return [
        marked[start : start + size] for size in _PIECES for start in range(len(marked) - size + 1)
    ]


def pieces_between(word: str, other: str) -> list[str]:
    """Runs of three to five characters over the seam of two words."""
    head, tail = word[-_SEAM:], other[:_SEAM]
    joined, seam = f"{head}_{tail}", len(head)
    return [
        joined[start : start + size]
        for size in _PIECES
        for start in range(max(0, seam - size + 1), min(seam, len(joined) - size) + 1)
    ]


def _plain(word: str) -> str:
    if word[0].isdigit():
        return _number(word)
    return word.replace("'", "")


def _number(word: str) -> str:
    """The size of a number: an age, a temperature, a pulse."""
    found = _DIGITS.match(word)
    value = float(found.group()) if found and len(found.group()) < 9 else 1e9
    return next((name for limit, name in _NUMBERS if value < limit), "#m") + word[-2:].strip(
        "0123456789.,:/"
    )


def _highest(sums: Sequence[int]) -> tuple[float, int, int]:
    """The score of the message, of a long one its highest window's, and the range it is of."""
    count = len(sums) - 1
    if count <= _WINDOW + _STEP:
        return sums[count] / (count + SMOOTHING) ** 0.5, 0, count
    starts = [*range(0, count - _WINDOW, _STEP), count - _WINDOW]
    start = max(starts, key=lambda start: sums[start + _WINDOW] - sums[start])
    score = (sums[start + _WINDOW] - sums[start]) / (_WINDOW + SMOOTHING) ** 0.5
    return score, start, start + _WINDOW


def _heaviest(sums: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """The run of at most eight words that weighs most."""
    size = min(_SPAN, last - first)
    start = max(range(first, last - size + 1), key=lambda place: sums[place + size] - sums[place])
    return start, start + size
