"""Phrases followed through one text from all places at once.

The places reached are one integer, and a step is a shift (Baeza-Yates and Gonnet, "A new approach
to text searching", Communications of the ACM 35, 1992). Where something stands is told by the sets
of places where it begins, one for each length it has there: so a choice is worked out once a text,
and its part in a phrase is a shift for each of its lengths. What a phrase costs is fixed by the
phrase and the length of the text: no text can make it slow.
"""

from __future__ import annotations

from collections.abc import Sequence

from housecall.guard.phrases import LONGEST_GAP, Gap
from housecall.guard.symbols import Either, Step

EVERYWHERE = -1
"""The set of all places."""

Spans = dict[int, int]
"""For each length the places where something of that length begins."""


def _leaps(longest: int) -> tuple[int, ...]:
    """Sizes of leaps that, each made or not, lead to all of the next ``longest`` places."""
    sizes: list[int] = []
    while (far := sum(sizes)) < longest:
        sizes.append(min(far + 1, longest - far))
    return tuple(sizes)


_LEAPS = tuple(_leaps(longest) for longest in range(LONGEST_GAP + 1))


class Follower:
    """Follows phrases through a text: where its symbols stand, and which words gaps may pass."""

    def __init__(self, masks: Sequence[int], passable: int) -> None:
        self._masks = masks
        self._choices: dict[Either, Spans] = {}
        # By length the places from which so many words may be passed.
        self._gaps: Spans = {0: EVERYWHERE}
        for longest in range(LONGEST_GAP):
            self._gaps[longest + 1] = self._gaps[longest] & passable >> longest

    def spans(self, steps: Sequence[Step], places: int = EVERYWHERE) -> Spans:
        """The lengths that the steps have from each of ``places``."""
        if len(steps) == 1:
            stands = self._stands(steps[0])
            if places == EVERYWHERE:
                return stands
            return {size: both for size, begins in stands.items() if (both := begins & places)}
        if not self._reached(steps, places):
            return {}
        found = {0: places}
        for step in steps:
            before, found = found, {}
            for more, begins in self._stands(step).items():
                for length, starts in before.items():
                    if both := starts & begins >> length:
                        found[length + more] = found.get(length + more, 0) | both
        return found

    def _reached(self, steps: Sequence[Step], places: int) -> int:
        """The places to which the steps lead from any of ``places``: most phrases lead nowhere."""
        masks, gaps = self._masks, self._gaps
        for step in steps:
            if isinstance(step, int):
                places = (places & masks[step]) << 1
            elif isinstance(step, Gap):
                for size in _LEAPS[step.longest]:
                    places |= (places & gaps[size]) << size
            else:
                before, places = places, 0
                for length, begins in self._choice(step).items():
                    places |= (before & begins) << length
            if not places:
                break
        return places

    def _stands(self, step: Step) -> Spans:
        if isinstance(step, int):
            return {1: self._masks[step]}
        if isinstance(step, Gap):
            return {length: self._gaps[length] for length in range(step.longest + 1)}
        return self._choice(step)

    def _choice(self, either: Either) -> Spans:
        """Where a choice stands, worked out once a text: concepts are in many phrases."""
        found = self._choices.get(either)
        if found is None:
            found = self._choices[either] = {}
            masks = self._masks
            for key, backwards in either.plain:
                if masks[key]:
                    begins = EVERYWHERE
                    for symbol in backwards:
                        begins = begins >> 1 & masks[symbol]
                    if begins:
                        length = len(backwards)
                        found[length] = found.get(length, 0) | begins
            for inner in either.nested:
                _add(found, self._choice(inner))
            for key, steps in either.others:
                if masks[key]:
                    _add(found, self.spans(steps))
        return found


def _add(found: Spans, more: Spans) -> None:
    for length, begins in more.items():
        found[length] = found.get(length, 0) | begins
