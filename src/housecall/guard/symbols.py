"""Numbers for the words of the phrases, and where in a text each of them stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from housecall.guard.phrases import Choice, Element, Elements, Gap, Number, Word

ANYTHING = 0
"""The symbol of what stands at every place."""


@dataclass(frozen=True, slots=True, eq=False)
class Either:
    """A choice between sequences; ``key_of`` each says when it need not be looked at."""

    plain: tuple[tuple[int, tuple[int, ...]], ...]
    """Key and words, from the last to the first, of those that have nothing else: most."""
    nested: tuple[Either, ...]
    """Those that are another choice."""
    others: tuple[tuple[int, tuple[Step, ...]], ...]
    """Key and steps of the rest."""
    may_be_empty: bool
    gap_first: bool
    """Whether an option begins with a gap."""

    def options(self) -> list[tuple[Step, ...]]:
        """All of them."""
        plain = [words[::-1] for _, words in self.plain]
        return [*plain, *((one,) for one in self.nested), *(steps for _, steps in self.others)]


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

    def steps(self, elements: Elements) -> tuple[Step, ...]:
        """A phrase with numbers for words."""
        return _begun(self._steps(elements))

    def __len__(self) -> int:
        return 1 + len(self._numbers)

    def of(self, word: str) -> tuple[int, ...]:
        """The symbols of a folded word."""
        return tuple(self._look_up(word))

    def _look_up(self, word: str) -> Iterator[int]:
        yield from self._by_word.get(word, ())
        for length in self._prefix_lengths:
            if length > len(word):
                break
            yield from self._by_prefix.get(word[:length], ())
        if word[:1].isdigit():
            yield from (symbol for number, symbol in self._ranges if number.matches(word))

    def _steps(self, elements: Elements) -> tuple[Step, ...]:
        return tuple(self._step(element) for element in elements)

    def _step(self, element: Element) -> Step:
        if isinstance(element, Gap):
            return element
        if isinstance(element, Choice):
            return self._either(element)
        number = self._numbers.get(element)
        if number is None:
            number = len(self)
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
            either = _choice([self._steps(option) for option in choice.options])
            self._choices[id(choice)] = choice, either  # the choice is kept: its id stays taken
        return self._choices[id(choice)][1]


def key_of(steps: Iterable[Step], besides: Collection[int] = ()) -> int:
    """The rarest symbol that a sequence can't do without.

    Common words are in the first patterns already, so that their numbers are low.
    """
    words = (step for step in steps if isinstance(step, int) and step not in besides)
    return max(words, default=ANYTHING)


def _choice(options: Sequence[tuple[Step, ...]]) -> Either:
    plain: list[tuple[int, tuple[int, ...]]] = []
    nested: list[Either] = []
    others: list[tuple[int, tuple[Step, ...]]] = []
    for steps in options:
        words = tuple(step for step in steps if isinstance(step, int))
        if len(words) == len(steps):
            plain.append((key_of(steps), words[::-1]))
        elif len(steps) == 1 and isinstance(steps[0], Either):
            nested.append(steps[0])
        else:
            others.append((key_of(steps), steps))
    return Either(
        tuple(plain),
        tuple(nested),
        tuple(others),
        any(_may_be_empty(steps) for steps in options),
        any(_gap_first(steps) for steps in options),
    )


def _may_be_empty(steps: Iterable[Step]) -> bool:
    return all(isinstance(s, Gap) or (isinstance(s, Either) and s.may_be_empty) for s in steps)


def _gap_first(steps: Iterable[Step]) -> bool:
    """Whether a gap may come before any word."""
    for step in steps:
        if isinstance(step, Gap) or (isinstance(step, Either) and step.gap_first):
            return True
        if isinstance(step, int) or not step.may_be_empty:
            return False
    return False


def _begun(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """What is the same at the beginning of a phrase, where no gap is: there it is from nowhere.

    Where a choice comes first, each of its options is put before the rest: ``(my)? ~2 chest`` is
    ``(my ~2 chest|chest)``.
    """
    if not _gap_first(steps):
        return steps
    first, rest = steps[0], steps[1:]
    if isinstance(first, Either):
        return (_choice([_begun(option + rest) for option in first.options()]),)
    return _begun(rest)
