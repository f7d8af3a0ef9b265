"""Numbers for the words of the phrases, and where in a message each of them stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from housecall.guard.phrases import Choice, Element, Elements, Gap, Number, Word
from housecall.guard.text import Text

_MOST_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Either:
    """A choice between sequences, each with the symbols it can't do without."""

    options: tuple[tuple[frozenset[int], tuple[Step, ...]], ...]


Step = int | Gap | Either


class Symbols:
    """Numbers for the words of the phrases: one for each set of forms."""

    def __init__(self) -> None:
        self._numbers: dict[Element, int] = {}
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        self._by_prefix: defaultdict[str, list[int]] = defaultdict(list)
        self._ranges: list[tuple[Number, int]] = []
        self._choices: dict[int, tuple[Choice, Either]] = {}
        self._prefix_lengths: list[int] = []
        self._remembered: dict[str, tuple[int, ...]] = {}

    def steps(self, elements: Elements) -> tuple[Step, ...]:
        """The elements with numbers for words."""
        return tuple(self._step(element) for element in elements)

    def masks(self, text: Text) -> dict[int, int]:
        """For each symbol in the text the places it stands at."""
        places: dict[str, int] = {}
        for place, word in enumerate(text.words):
            places[word] = places.get(word, 0) | 1 << place
        masks: dict[int, int] = {}
        for word, mask in places.items():
            for symbol in self._of(word):
                masks[symbol] = masks.get(symbol, 0) | mask
        return masks

    def _of(self, word: str) -> tuple[int, ...]:
        found = self._remembered.get(word)
        if found is None:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[word] = tuple(self._look_up(word))
        return found

    def _look_up(self, word: str) -> Iterator[int]:
        yield from self._by_word.get(word, ())
        for length in self._prefix_lengths:
            if length > len(word):
                break
            yield from self._by_prefix.get(word[:length], ())
        if word[:1].isdigit():
            yield from (symbol for number, symbol in self._ranges if number.matches(word))

    def _step(self, element: Element) -> Step:
        if isinstance(element, Gap):
            return element
        if isinstance(element, Choice):
            return self._either(element)
        number = self._numbers.get(element)
        if number is None:
            number = len(self._numbers)
            self._add(element, number)
        return number

    def _add(self, element: Word | Number, symbol: int) -> None:
        self._numbers[element] = symbol
        if isinstance(element, Number):
            self._ranges.append((element, symbol))
            return
        for word in element.words:
            self._by_word[word].append(symbol)
        for prefix in element.prefixes:
            self._by_prefix[prefix].append(symbol)
            self._prefix_lengths = sorted({*self._prefix_lengths, len(prefix)})

    def _either(self, choice: Choice) -> Either:
        """The same choice gives the same object, so that a concept is looked up once a message."""
        if id(choice) not in self._choices:
            options = [self.steps(option) for option in choice.options]
            either = Either(tuple((needed_in(steps), steps) for steps in options))
            self._choices[id(choice)] = choice, either  # the choice is kept: its id stays taken
        return self._choices[id(choice)][1]


def needed_in(steps: Iterable[Step]) -> frozenset[int]:
    """The symbols that a sequence can't do without."""
    return frozenset(step for step in steps if isinstance(step, int))
