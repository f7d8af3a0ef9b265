"""Conversations laid one behind the other: no padding is computed, and none sees another."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from housecall.chat_template import IGNORE, Encoded


@dataclass(frozen=True, slots=True)
class Packed:
    """Conversations in a row: ``ids`` and ``targets`` (tokens,), and the length of each.

    ``targets`` are the labels moved to where they are predicted: the last position of each
    conversation has none. Behind the last of the ``tokens`` there may be a filler without labels.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    lengths: tuple[int, ...]
    tokens: int

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return Packed(self.ids.to(device), self.targets.to(device), self.lengths, self.tokens)


_ROUND = 64
"""A library that multiplies compiles a program for each shape that it meets: let there be few."""

Step = list[Encoded]
"""The conversations behind one step of the optimiser."""


def pack(rows: Sequence[Encoded]) -> Packed:
    """Lay conversations one behind the other, filled up to a multiple of ``_ROUND`` tokens."""
    ids = [token for row in rows for token in row.ids]
    targets = [label for row in rows for label in [*row.labels[1:], IGNORE]]
    lengths = [len(row.ids) for row in rows]
    filler = -len(ids) % _ROUND
    if filler:
        lengths.append(filler)
    return Packed(
        torch.tensor(ids + [0] * filler),
        torch.tensor(targets + [IGNORE] * filler),
        tuple(lengths),
        len(ids),
    )


def micro_batches(rows: Sequence[Encoded], tokens: int) -> list[Packed]:
    """Cut into parts of at most ``tokens``; a longer conversation is a part of its own."""
    return [pack(part) for part in _fill(rows, tokens)]


def labels(rows: Sequence[Encoded]) -> int:
    """How many tokens of these conversations are learned."""
    return sum(label != IGNORE for row in rows for label in row.labels[1:])


def steps_of(rows: Sequence[Encoded], tokens: int, seed: int) -> Iterator[Step]:
    """Steps of at most ``tokens`` without end: each epoch goes over all rows in a new order."""
    order = list(rows)
    shuffle = random.Random(seed)
    while True:
        shuffle.shuffle(order)
        yield from _fill(order, tokens)


def steps_an_epoch(rows: Sequence[Encoded], tokens: int, seed: int) -> int:
    """How many steps the first epoch has."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return sum(1 for _ in _fill(order, tokens))


def _fill(rows: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    """Parts of at most ``tokens``, each row in the fullest part that it fits into (best fit)."""
    parts: list[list[Encoded]] = []
    room: list[int] = []
    for row in rows:
        size = len(row.ids)
        fitting = [(space, i) for i, space in enumerate(room) if space >= size]
        if fitting:
            _, place = min(fitting)
            parts[place].append(row)
            room[place] -= size
        else:
            parts.append([row])
            room.append(tokens - size)
    return parts
