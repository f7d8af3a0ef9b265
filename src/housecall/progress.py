"""Progress on long work: bars with time left on a terminal, nothing anywhere else.

Everything goes to standard error, so that ``--json`` keeps standard output to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from housecall.machine import process_rank


class Bar(Protocol):
    """What a step tells of its progress."""

    def advance(self, amount: float = 1.0, note: str | None = None) -> None:
        """``amount`` more of the total is done; ``note`` replaces the text behind the bar."""
        ...


@lru_cache(maxsize=1)
def console() -> Console:
    """The terminal that people read; of several processes only the first one writes to it."""
    return Console(stderr=True, highlight=False, quiet=process_rank() > 0)


@contextmanager
def bar(title: str, total: float | None) -> Iterator[Bar]:
    """A progress bar over ``total`` units of work; None when nobody knows how many there are."""
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(),
        disable=not console().is_terminal,
    ) as progress:
        yield _RichBar(progress, title, total)


class _RichBar:
    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")

    def advance(self, amount: float = 1.0, note: str | None = None) -> None:
        if note is None:
            self._progress.update(self._task, advance=amount)
        else:
            self._progress.update(self._task, advance=amount, note=note)
