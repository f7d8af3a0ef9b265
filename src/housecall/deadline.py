"""The moment by which an answer must be there: its own limit, or the end of this server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from housecall.errors import EngineTimeout, EngineUnavailable

_Result = TypeVar("_Result")

SHUTTING_DOWN = "this server is shutting down: try again in a moment"


class Cut(EngineUnavailable):
    """The server ends before the answer is there."""


class Deadline:
    """Ends ``seconds`` after it was made, or when it is cut."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds
        self._waiting: asyncio.Timeout | None = None
        self._is_cut = False

    def cut(self) -> None:
        """End it now: this server can't wait any longer."""
        self._is_cut = True
        self._end = asyncio.get_running_loop().time()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._end)

    async def keep(self, work: Awaitable[_Result]) -> _Result:
        """The result of ``work``, if it comes in time.

        Raises EngineTimeout, and Cut after ``cut``.
        """
        try:
            async with asyncio.timeout_at(self._end) as self._waiting:
                return await work
        except TimeoutError:
            if self._is_cut:
                raise Cut(SHUTTING_DOWN) from None
            raise EngineTimeout(
                f"the answer was not ready within {self._seconds:g} s: ask for fewer max_tokens, "
                "or serve with a larger HOUSECALL_REQUEST_TIMEOUT"
            ) from None
        finally:
            self._waiting = None


class Deadlines:
    """Those of all answers that are being made, ``seconds`` each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: set[Deadline] = set()

    @contextmanager
    def one(self) -> Iterator[Deadline]:
        """The deadline of one answer, as long as it is being made."""
        deadline = Deadline(self._seconds)
        self._open.add(deadline)
        try:
            yield deadline
        finally:
            self._open.discard(deadline)

    def cut(self) -> None:
        """Cut them all."""
        for deadline in self._open:
            deadline.cut()
