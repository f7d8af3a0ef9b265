"""How many questions the engine is asked at once, how many wait, and when there are no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from housecall.deadline import SHUTTING_DOWN
from housecall.engines.base import Engine
from housecall.errors import EngineBusy, EngineUnavailable


class Places:
    """The places in an engine and in the queue of ``queue`` questions before it."""

    def __init__(self, engine: Engine, queue: int) -> None:
        self._engine = engine
        self._queue = queue
        self._taken = 0
        self.loaded = False
        """Whether the engine has its model, so that it can be asked."""
        self.draining = False
        """Whether no more questions are taken; those that are being answered go on."""

    @property
    def load(self) -> tuple[int, int]:
        """How many answers the engine is making, and how many questions wait for a place."""
        running = min(self._taken, self._engine.info.parallel) if self._taken else 0
        return running, self._taken - running

    def check(self) -> None:
        """Raise EngineBusy or EngineUnavailable where ``take`` would, but for a model that loads.

        While it loads a question may already be saved.
        """
        if self.draining:
            raise EngineUnavailable(SHUTTING_DOWN)
        if self.loaded and self._taken >= self._engine.info.parallel + self._queue:
            raise EngineBusy("all places are taken: try again in a moment")

    @contextmanager
    def take(self) -> Iterator[None]:
        """Take a place. Raises EngineBusy and EngineUnavailable."""
        self.check()
        if not self.loaded:
            raise EngineUnavailable("the model is still loading: try again in a moment")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
