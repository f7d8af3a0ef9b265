"""Tables of small whole numbers by name, kept so that two hundred thousand load in a blink.

In JSON a table is a few strings: the names, a line each, those of two parts grouped by the first,
and the numbers, a byte each in Base64. Parsed as an ordinary JSON object the same table takes ten
times as long.
"""

from __future__ import annotations

import base64
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from housecall.guard.packs import Strict

Pairs = Mapping[str, Mapping[str, int]]
"""The weights of names of two parts, by the first and then by the second."""


class Weights(NamedTuple):
    """The weights of a table, by what they are of (``features.py``)."""

    alone: Mapping[str, int]
    """Words, their pieces, and pieces that end at a seam between two words."""
    neighbours: Pairs
    distant: Pairs
    """Words with a gap between them."""
    over_seam: Pairs
    """The end of a word and the beginning of the next."""


_BETWEEN = (" ", "~", "_")  # what stands between the parts of a pair, in the order of Weights


class Table(Strict):
    """``alone`` has a name a line; a line of the pairs is a first part and all its second ones.

    ``numbers`` has a signed byte for each of them, in the order of the fields.
    """

    alone: str
    neighbours: str
    distant: str
    over_seam: str
    numbers: str


def to_table(weights: Mapping[str, int]) -> Table:
    """The weights as they are kept, in the order of their names."""
    alone: dict[str, int] = {}
    pairs: list[defaultdict[str, dict[str, int]]] = [defaultdict(dict) for _ in _BETWEEN]
    for name, weight in sorted(weights.items()):
        for between, group in zip(_BETWEEN, pairs, strict=True):
            first, _, other = name.partition(between)
            if first and other:
                group[first][other] = weight
                break
        else:
            alone[name] = weight
    numbers = array("b", alone.values())
    for group in pairs:
        for others in group.values():
            numbers.extend(others.values())
    neighbours, distant, over_seam = (
        "\n".join(" ".join((first, *others)) for first, others in group.items()) for group in pairs
    )
    return Table(
        alone="\n".join(alone),
        neighbours=neighbours,
        distant=distant,
        over_seam=over_seam,
        numbers=base64.b64encode(numbers.tobytes()).decode(),
    )


def from_table(table: Table) -> Weights:
    """The weights by name. Raises ValueError when the strings don't fit together."""
    names = table.alone.split("\n") if table.alone else []
    numbers = iter(array("b", base64.b64decode(table.numbers, validate=True)))
    alone = dict(zip(names, numbers, strict=False))
    pairs = (table.neighbours, table.distant, table.over_seam)
    found = Weights(alone, *(_grouped(lines, numbers) for lines in pairs))
    if len(alone) != len(names) or next(numbers, None) is not None:
        raise ValueError("there are not as many names as numbers")
    return found


def _grouped(lines: str, numbers: Iterator[int]) -> Pairs:
    pairs: dict[str, dict[str, int]] = {}
    for line in lines.split("\n") if lines else ():
        first, *others = line.split(" ")
        pairs[first] = dict(zip(others, numbers, strict=False))
        if len(pairs[first]) != len(others):
            raise ValueError(f"too few numbers for {first!r}")
    return pairs
